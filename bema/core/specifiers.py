"""Version specifiers, as `requires-python` writes them: `>=3.11,<3.14`, `==3.12.*`, `~=3.11` (PEP 440, release numbers)."""

from __future__ import annotations

import re

Release = tuple[int, ...]

_CLAUSE = re.compile(
    r"\s*(~=|===?|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?((?:a|b|rc)\d+|\.dev\d+|\.post\d+)?\s*\Z", re.ASCII
)


def check_specifiers(text: str) -> str:
    """What is wrong with a list of specifiers, or nothing."""
    for clause in _clauses(text):
        found = _CLAUSE.match(clause)
        if found is None:
            return f"has {clause.strip()!r}, which is not a version specifier"
        if found[3] and found[1] not in ("==", "!="):
            return f"has {clause.strip()!r}: '.*' goes with == and != only"
        if found[1] == "~=" and "." not in found[2]:
            return f"has {clause.strip()!r}: ~= needs at least two numbers"
    return ""


def satisfies(version: Release, text: str) -> bool:
    """Whether a released Python version fits every clause of `text`."""
    return all(_fits(version, clause) for clause in _clauses(text))


def _clauses(text: str) -> list[str]:
    return [clause for clause in text.split(",") if clause.strip()]


def _fits(version: Release, clause: str) -> bool:
    found = _CLAUSE.match(clause)
    if found is None:
        return False
    operator, wanted = found[1], tuple(int(n) for n in found[2].split("."))
    if found[3]:
        same = version[: len(wanted)] == wanted
        return same if operator == "==" else not same
    width = max(len(version), len(wanted))
    ours, theirs = _padded(version, width), _padded(wanted, width)
    match operator:
        case "~=":
            return ours >= theirs and version[: len(wanted) - 1] == wanted[:-1]
        case "==" | "===":
            return ours == theirs
        case "!=":
            return ours != theirs
        case "<=":
            return ours <= theirs
        case ">=":
            return ours >= theirs
        case "<":
            return ours < theirs
        case _:
            return ours > theirs


def _padded(release: Release, width: int) -> Release:
    return release + (0,) * (width - len(release))
