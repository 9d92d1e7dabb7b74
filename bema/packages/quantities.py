"""Kubernetes quantities: what is one, and how much it is."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?\d+)?", re.ASCII)
_FACTORS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_FACTORS |= {f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGTPE")}
_LONGEST = 32  # float("1e999999999") is quick, a million digits are not


def amount(text: str) -> float | None:
    """`250m` is 0.25, `1Gi` is 1073741824; None where it is not a quantity."""
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return None
    number, suffix = found.group(1), found.group(2) or ""
    if suffix in _FACTORS:
        return float(number) * _FACTORS[suffix]
    return float(f"{number}{suffix}")
