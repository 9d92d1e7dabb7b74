"""Every failure bema reports, as a few classes: each says what its receiver should do about it.

Law: an error is known by its code, and the code's row in `core/problems.py` decides the status that leaves each door.
"""

from __future__ import annotations

from typing import Any, ClassVar

from bema.core.problems import PROBLEMS, Problem


class BemaError(Exception):
    """Base of all errors of ours.

    `code` is a key of `PROBLEMS`; `fix` overrides the table's remedy; `details` is plain data that travels to the
    caller (a field path, a deployment id, log lines).
    """

    code: str = "internal"
    retry_after: float | None = None
    """Seconds after which trying again makes sense, where that is known."""

    def __init__(self, message: str = "", *, code: str | None = None, fix: str | None = None, **details: Any) -> None:
        if code is not None:
            self.code = code
        self.message = message or PROBLEMS[self.code].says
        self.fix = fix or PROBLEMS[self.code].fix
        self.details = details
        super().__init__(self.message)

    @property
    def problem(self) -> Problem:
        return PROBLEMS.get(self.code) or PROBLEMS["internal"]


class Invalid(BemaError):
    """What you sent is wrong; sending it again will not help."""

    code = "invalid_argument"


class BadDeclaration(BemaError, TypeError):
    """A class, function or name is declared wrongly; raised when it is declared, never when it is called."""

    code = "bad_declaration"

    def within(self, what: str) -> BadDeclaration:
        """The same, said of a part of something larger."""
        return BadDeclaration(f"{what}: {self.message}", code=self.code, fix=self.fix, **self.details)


class NotFound(BemaError):
    code = "not_found"


class Conflict(BemaError):
    """Something of that name, or somebody in that role, is already there."""

    code = "name_taken"


class Denied(BemaError):
    code = "unauthenticated"


class Unavailable(BemaError):
    """Nothing was sent: trying again, here or elsewhere, is safe."""

    code = "unavailable"


class Overloaded(Unavailable):
    """The instance refused before running anything; `retry_after` is its hint in seconds."""

    code = "overloaded"

    def __init__(self, message: str = "", *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after


class Disconnected(BemaError):
    """The connection went away after the call was written: whether it ran is unknown."""

    code = "disconnected"


class StreamCut(BemaError):
    """A stream ended without its end: a stop, a failure or a lost connection."""

    code = "stream_cut"


class DeadlineExceeded(BemaError, TimeoutError):
    code = "deadline_exceeded"


class TooLarge(BemaError):
    code = "too_large"


class ProtocolError(BemaError):
    """The peer broke the protocol; the connection is closed, the process lives on."""

    code = "protocol"


class RemoteError(BemaError):
    """The service raised something it had not declared.

    `type` is the remote exception's qualified name, `traceback` its text as it was on the other side.
    """

    code = "remote_error"

    def __init__(self, message: str = "", *, type: str = "", traceback: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.type = type
        self.traceback = traceback


class BadAnswer(BemaError):
    """The service gave what its own signature does not allow, or what cannot travel: it is the service that is wrong."""

    code = "bad_answer"


class Refused(BemaError):
    """The machine, its files or its settings do not allow it: one line, exit 1, no traceback."""

    code = "not_supported"


class Failed(BemaError):
    """A build or a start did not succeed; `details` carries the text and the last log lines."""

    code = "start_failed"


def as_json(error: BemaError, trace_id: str = "") -> dict[str, Any]:
    """The body every HTTP door answers with: `{"error": {"code", "message", "fix", "trace_id", ...details}}`."""
    return {
        "error": {"code": error.code, "message": error.message, "fix": error.fix, "trace_id": trace_id, **error.details}
    }


class _Classes:
    """The class that a code is raised as when it arrives from elsewhere: its own, or that of its family."""

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
        ),
        Conflict: ("already_served", "conflict", "key_reused"),
        Denied: ("forbidden",),
        Unavailable: ("not_up",),
        Overloaded: ("rate_limited",),
        TooLarge: ("head_too_large", "script_too_large"),
        Failed: ("build_failed", "crash_loop"),
        Refused: (
            *("already_up", "port_in_use", "state_unwritable", "state_held", "state_failed", "no_flock"),
            *("store_newer", "missing_extra"),
        ),
    }

    @classmethod
    def of(cls, code: str) -> type[BemaError]:
        found = cls.by_code.get(code)
        return found or next((family for family, codes in cls.families.items() if code in codes), BemaError)


def of_code(code: str, message: str, **details: Any) -> BemaError:
    """Rebuild an error from its code, as the class that raised it: whoever catches a family catches it from afar too."""
    if code not in PROBLEMS:
        return BemaError(message, code="internal", remote_code=code, **details)
    cls = _Classes.of(code)
    return cls(message, **details) if cls.code == code else cls(message, code=code, **details)
