"""The module channel: the handshake, and the operations in JSON lines."""
