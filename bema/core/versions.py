"""Versions and version requirements: the part of PEP 440 that bema needs. Pure.

Two places use it: a plugin requires a version of its host, and a script one of Python (`requires-python`).
"""

from __future__ import annotations

import re
from itertools import zip_longest

# patterns are compiled when first needed: every start imports this
_VERSION = r"v?(?:\d+!)?(\d+(?:\.\d+)*)(?:[-_.]?(a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?(\d*))?"
_CLAUSE = r"\s*(~=|===|==|!=|<=|>=|<|>)\s*([^\s,]+)\s*\Z"
_STRICT = r"v?(\d+(?:\.\d+)*)(\.\*)?((?:a|b|rc)\d+|\.dev\d+|\.post\d+)?\Z"
_STAGES = {"dev": 0, "a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "pre": 3, "preview": 3}

Key = tuple[tuple[int, ...], tuple[int, int]]
Release = tuple[int, ...]


def read_version(text: str) -> Key:
    """A key to order versions by; a final release comes after its own previews. `ValueError` for what is no version."""
    match = re.match(_VERSION, text.strip(), re.I)
    if match is None:
        raise ValueError(f"{text!r} is not a version")
    numbers, stage, serial = match.groups()
    release = [int(part) for part in numbers.split(".")]
    # PEP 440 pads the shorter release with zeros: 1.0 and 1 are the same version
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    return tuple(release), (_STAGES[stage.lower()], int(serial or 0)) if stage else (9, 0)


def satisfies(version: str | Release, requirement: str) -> bool:
    """Whether a version, or the numbers of a release, meets all clauses of a requirement such as `>=2,<3`.

    `ValueError` where the version or the requirement is malformed.
    """
    text = version if isinstance(version, str) else ".".join(map(str, version))
    return all(_fits(text, clause) for clause in _clauses(requirement))


def check_specifiers(text: str) -> str:
    """What is wrong with a list of specifiers, as the end of a sentence about it; empty where nothing is."""
    for clause in _clauses(text):
        found = re.match(_CLAUSE, clause)
        wanted = found and re.match(_STRICT, found[2], re.ASCII)
        if not found or not wanted:
            return f"has {clause.strip()!r}, which is not a version specifier"
        if wanted[2] and found[1] not in ("==", "!="):
            return f"has {clause.strip()!r}: '.*' goes with == and != only"
        if found[1] == "~=" and "." not in wanted[1]:
            return f"has {clause.strip()!r}: ~= needs at least two numbers"
    return ""


def _clauses(text: str) -> list[str]:
    return [clause for clause in text.split(",") if clause.strip()]


def _fits(version: str, clause: str) -> bool:
    match = re.match(_CLAUSE, clause)
    if match is None:
        raise ValueError(f"{clause!r} is not a version requirement")
    operator, wanted = match.groups()
    if operator in ("==", "!=") and wanted.endswith(".*"):
        return _starts(version, wanted[:-2]) is (operator == "==")
    if operator == "~=":
        # PEP 440: ~=2.2 is >=2.2, ==2.*
        numbers = re.match(_VERSION, wanted, re.I)
        prefix = numbers[1].rpartition(".")[0] if numbers else wanted
        return read_version(version) >= read_version(wanted) and _starts(version, prefix)
    have, want = read_version(version), read_version(wanted)
    answers = {
        "==": have == want,
        "===": version.strip() == wanted,
        "!=": have != want,
        "<=": have <= want,
        ">=": have >= want,
        # PEP 440: 2.0rc1 does not satisfy <2.0
        "<": have < want and not (have[0] == want[0] and have[1] != want[1]),
        ">": have > want,
    }
    return answers[operator]


def _starts(version: str, prefix: str) -> bool:
    have, want = read_version(version)[0], read_version(prefix)[0]
    pairs = list(zip_longest(have, want, fillvalue=0))
    return all(a == b for a, b in pairs[: len(prefix.split("."))])
