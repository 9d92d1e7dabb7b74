"""Calls between processes: connections, streams of payloads, the server and the client. Only `transports` opens sockets."""
