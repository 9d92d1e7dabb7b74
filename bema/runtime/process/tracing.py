"""The trace of a call in the lines that are logged while it is answered.

Law: one call from outside is one trace, through every hop; a hop that was given none begins one, and passes it on. Under a
launcher a line is one JSON object with what its log keeps apart: `event`, `level` and `trace_id`.
"""

from __future__ import annotations

import logging

import msgspec

from bema.core.call import CURRENT, traceparent


def trace_id() -> str:
    """The trace of the call that is answered here; empty outside of one."""
    call = CURRENT.get()
    if call is None:
        return ""
    parent = call.metadata.get("traceparent", "")
    # written back: what this call calls in turn must carry the same trace
    if len(parent.split("-")) < 4:
        parent = call.metadata["traceparent"] = traceparent()
    return parent.split("-")[1]


class TraceFilter(logging.Filter):
    """Puts `trace_id` on every record, for `%(trace_id)s` of a format. Add it to a handler: `handler.addFilter(...)`."""

    def filter(self, record: logging.LogRecord) -> bool:
        # a record that passes two handlers keeps the trace of the call that logged it
        if not hasattr(record, "trace_id"):
            record.trace_id = trace_id()
        return True


class LineFormatter(logging.Formatter):
    """A record as one line of JSON, an exception's traceback among its text."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"event": f"{record.name}: {super().format(record)}", "level": record.levelname.lower()}
        if trace := getattr(record, "trace_id", ""):
            line["trace_id"] = trace
        return msgspec.json.encode(line).decode()


def log_lines(level: int = logging.INFO) -> None:
    """Log JSON lines with traces to stderr, unless somebody has set up logging already."""
    handler = logging.StreamHandler()
    handler.addFilter(TraceFilter())
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
