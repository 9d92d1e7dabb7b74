"""The protocols between processes: bytes in, events out. Nothing here knows an event loop or a socket."""
