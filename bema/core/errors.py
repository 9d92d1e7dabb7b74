"""The errors of bema: few classes, each of which tells its receiver what to do.

Law: an error is known by its code, and the code's row in `core/problems.py` decides the HTTP and gRPC status and the exit
code that it becomes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from bema.core.problems import PROBLEMS, Problem


class BemaError(Exception):
    """The base of all errors of bema.

    - `code`: what went wrong, a key of `PROBLEMS`.
    - `message`: one sentence for people; without one, the sentence of the code.
    - `fix`: the remedy; without one, that of the code.
    - `details`: plain data that travels to the caller, such as a field path, a deployment id or log lines.
    """

    code: str = "internal"
    retry_after: float | None = None
    """Seconds to wait before the next attempt, or None where nobody knows."""

    def __init__(self, message: str = "", *, code: str | None = None, fix: str | None = None, **details: Any) -> None:
        if code is not None:
            self.code = code
        self.message = message or PROBLEMS[self.code].says
        self.fix = fix or PROBLEMS[self.code].fix
        self.details = details
        super().__init__(self.message)

    @property
    def problem(self) -> Problem:
        """The row of the error's code: HTTP and gRPC status, exit code, meaning and remedy."""
        # a code of a newer peer may be unknown here
        return PROBLEMS.get(self.code) or PROBLEMS["internal"]


class Invalid(BemaError):
    """The caller sent something wrong: the same call will fail again."""

    code = "invalid_argument"


class BadDeclaration(BemaError, TypeError):
    """A class, function, name or option is declared in a way that can never work.

    It is raised where the declaration is made or first read, never at a call. It is a `TypeError` too.
    """

    code = "bad_declaration"

    def within(self, what: str) -> BadDeclaration:
        """The same error, its message preceded by the larger thing that it is a part of."""
        return BadDeclaration(f"{what}: {self.message}", code=self.code, fix=self.fix, **self.details)


class NotFound(BemaError):
    """Nothing has that name, or it belongs to somebody else."""

    code = "not_found"


class Conflict(BemaError):
    """Something of that name exists already, or the state of what was asked for does not allow it."""

    code = "name_taken"


class Denied(BemaError):
    """The request showed no valid credential, or one that does not allow the operation (code `forbidden`)."""

    code = "unauthenticated"


class Unavailable(BemaError):
    """No instance can take the call. Nothing was sent, so another attempt is safe."""

    code = "unavailable"


class Overloaded(Unavailable):
    """Every slot and every place in the queue is taken. Nothing ran, so another attempt is safe after `retry_after` seconds."""

    code = "overloaded"

    def __init__(self, message: str = "", *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after


class Disconnected(BemaError):
    """The connection was lost after the call was sent. The call may or may not have run: repeat it only if that does no harm."""

    code = "disconnected"


class StreamCut(BemaError):
    """A stream ended before its producer finished it, by a stop or a lost connection. The items before are whole."""

    code = "stream_cut"


class DeadlineExceeded(BemaError, TimeoutError):
    """The time given to the call or the start ran out. It is a `TimeoutError` too."""

    code = "deadline_exceeded"


class TooLarge(BemaError):
    """A message, a body or a file is larger than its limit, which the message names."""

    code = "too_large"


class ProtocolError(BemaError):
    """The peer broke the protocol. Its connection is closed, and the process goes on."""

    code = "protocol"


class RemoteError(BemaError):
    """The service raised an exception that its endpoint does not declare in `raises`.

    `type` is the qualified name of the remote exception, `traceback` the text of its traceback in the service's process.
    """

    code = "remote_error"

    def __init__(self, message: str = "", *, type: str = "", traceback: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.type = type
        self.traceback = traceback


class BadAnswer(BemaError):
    """The service's answer does not fit its own annotation, or cannot be encoded: the service is wrong, not the caller."""

    code = "bad_answer"


class Refused(BemaError):
    """The machine, its files or its settings do not allow what was asked. Commands show it as one line, without traceback."""

    code = "not_supported"


class Failed(BemaError):
    """A build or a start did not succeed; `details` holds the reason and the last log lines."""

    code = "start_failed"


def as_json(error: BemaError, trace_id: str = "") -> dict[str, Any]:
    """The body of every HTTP answer with an error: `{"error": {"code", "message", "fix", "trace_id", ...details}}`."""
    return {
        "error": {"code": error.code, "message": error.message, "fix": error.fix, "trace_id": trace_id, **error.details}
    }


class _Classes:
    """From a code to the class that it is raised as: the code's own class, or that of its family."""

    by_code: ClassVar[dict[str, type[BemaError]]] = {
        cls.code: cls
        for cls in (
            Invalid,
            BadDeclaration,
            NotFound,
            Conflict,
            Denied,
            Unavailable,
            Overloaded,
            Disconnected,
            StreamCut,
            DeadlineExceeded,
            TooLarge,
            ProtocolError,
            RemoteError,
            BadAnswer,
            Refused,
            Failed,
        )
    }
    families: ClassVar[dict[type[BemaError], tuple[str, ...]]] = {
        Invalid: (
            *("bad_name", "bad_setting", "usage", "bad_request", "method_not_allowed", "syntax_error"),
            *("pep723_malformed", "pep723_unclosed", "pep723_duplicated", "python_unavailable"),
            *("entry_not_found", "entry_ambiguous", "bad_document", "no_plan"),
            *("entry_file_missing", "pyproject_malformed", "lock_outdated", "archive_refused"),
            *("source_refused", "source_not_found", "source_denied", "source_changed"),
        ),
        Conflict: (
            *("already_served", "conflict", "key_reused", "call_exists", "call_paused", "call_cancelled", "bad_move"),
            *("stale_claim", "history_mismatch", "retries_exhausted"),
        ),
        StreamCut: ("handed_over",),
        Denied: ("forbidden",),
        Unavailable: ("not_up",),
        Overloaded: ("rate_limited", "source_rate_limited"),
        TooLarge: ("head_too_large", "script_too_large", "source_too_large"),
        Failed: ("build_failed", "crash_loop", "not_recordable", "source_unreachable"),
        Refused: (
            *("already_up", "port_in_use", "state_unwritable", "state_held", "state_failed", "no_flock"),
            *("store_newer", "missing_extra", "not_durable", "not_replayable"),
        ),
    }

    @classmethod
    def of(cls, code: str) -> type[BemaError]:
        found = cls.by_code.get(code)
        return found or next((family for family, codes in cls.families.items() if code in codes), BemaError)


def of_code(code: str, message: str, **details: Any) -> BemaError:
    """An error that came from another process, as the class that raised it there, so that `except` clauses catch it here."""
    # of a newer peer: its code cannot be looked up, and is kept for whoever can
    if code not in PROBLEMS:
        return BemaError(message, code="internal", remote_code=code, **details)
    cls = _Classes.of(code)
    return cls(message, **details) if cls.code == code else cls(message, code=code, **details)
