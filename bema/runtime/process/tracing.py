"""The trace of a call in the lines that are logged while it is answered.

Law: one call from outside is one trace, through every hop; a hop that was given none begins one, and passes it on. Under a
launcher a line is one JSON object with what its log keeps apart: `event`, `level` and `trace_id`.
"""

from __future__ import annotations

import logging

import msgspec

from bema.core.call import CURRENT, trace_of


def trace_id() -> str:
    """The trace of the call that is answered here; empty outside of one."""
    call = CURRENT.get()
    return "" if call is None else trace_of(call)


class TraceFilter(logging.Filter):
    """Puts `trace_id` on every record, for `%(trace_id)s` of a format. Add it to a handler: `handler.addFilter(...)`."""

    def filter(self, record: logging.LogRecord) -> bool:
        # a line of the log of calls names the trace of its call, which has ended
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


class TextFormatter(logging.Formatter):
    """A record as people read it on a terminal: time, level, text, and the trace where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        trace = getattr(record, "trace_id", "")
        return super().formatMessage(record) + (f"  trace={trace}" if trace else "")


def log_lines(level: int = logging.INFO, formatter: logging.Formatter | None = None) -> None:
    """Log JSON lines with traces to stderr, unless somebody has set up logging already."""
    handler = logging.StreamHandler()
    handler.addFilter(TraceFilter())
    handler.setFormatter(formatter or LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
