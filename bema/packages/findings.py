"""Finding: one problem of a document: rule, severity, path, line, reason, and the edit that mends it."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from msgspec import Struct

from bema.core.errors import Invalid
from bema.packages.nodes import Path, Source, path_text

_LONGEST = 500


class Severity(enum.StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Edit(NamedTuple):
    """Replace the characters from `start` to `end` by `text`."""

    start: int
    end: int
    text: str


class Finding(Struct, frozen=True):
    rule: str
    severity: Severity
    path: str
    line: int
    column: int
    message: str
    fix: str = ""  # what to do about it
    edits: tuple[Edit, ...] = ()  # how `--fix` does it

    def as_data(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "fix": self.fix,
            "fixable": bool(self.edits),
        }


def at(
    source: Source,
    rule: str,
    severity: Severity,
    path: Path,
    start: int,
    message: str,
    fix: str = "",
    edits: tuple[Edit, ...] = (),
) -> Finding:
    line, column = source.place(start)
    if len(message) > _LONGEST:  # what a document says is quoted, and may be megabytes
        message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
    return Finding(rule, severity, path_text(path), line, column, message, fix, edits)


class Unreadable(Invalid):
    """The document cannot be read; `finding` says where and why, with its rule id."""

    code = "bad_document"

    def __init__(self, finding: Finding, name: str = "") -> None:
        self.finding = finding
        where = f"{name}:{finding.line}:{finding.column}" if name else f"line {finding.line}, column {finding.column}"
        at_path = "" if finding.path == "." else f"{finding.path}: "
        super().__init__(
            f"{where}: {at_path}{finding.message} [{finding.rule}]",
            fix=finding.fix or None,
            rule=finding.rule,
            path=finding.path,
            line=finding.line,
            column=finding.column,
            reason=finding.message,
        )
