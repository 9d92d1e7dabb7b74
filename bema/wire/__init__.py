"""The conversation: bytes in, events out. No event loop and no socket is known here."""
