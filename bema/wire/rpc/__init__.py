"""Frames between processes: batches of messages, the table of calls, errors as payloads."""
