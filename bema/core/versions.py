"""Comparing versions, as much of PEP 440 as a plugin's requirement on its host needs. Pure."""

from __future__ import annotations

import re
from itertools import zip_longest

# compiled when first needed: every start imports this
_VERSION = r"v?(?:\d+!)?(\d+(?:\.\d+)*)(?:[-_.]?(a|b|c|rc|alpha|beta|pre|preview|dev)[-_.]?(\d*))?"
_CLAUSE = r"\s*(~=|===|==|!=|<=|>=|<|>)\s*([^\s,]+)\s*\Z"
_STAGES = {"dev": 0, "a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "pre": 3, "preview": 3}

Key = tuple[tuple[int, ...], tuple[int, int]]


def read_version(text: str) -> Key:
    """A key that orders versions; a final release comes after its own previews. `ValueError` when it is none."""
    match = re.match(_VERSION, text.strip(), re.I)
    if match is None:
        raise ValueError(f"{text!r} is not a version")
    numbers, stage, serial = match.groups()
    release = [int(part) for part in numbers.split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    return tuple(release), (_STAGES[stage.lower()], int(serial or 0)) if stage else (9, 0)


def satisfies(version: str, requirement: str) -> bool:
    """Whether `version` fits a comma-separated requirement such as `>=2,<3`. `ValueError` when that is malformed."""
    return all(_clause(version, clause) for clause in requirement.split(",") if clause.strip())


def _clause(version: str, clause: str) -> bool:
    match = re.match(_CLAUSE, clause)
    if match is None:
        raise ValueError(f"{clause!r} is not a version requirement")
    operator, wanted = match.groups()
    if operator in ("==", "!=") and wanted.endswith(".*"):
        return _starts(version, wanted[:-2]) is (operator == "==")
    if operator == "~=":
        return read_version(version) >= read_version(wanted) and _starts(version, wanted.rpartition(".")[0])
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
