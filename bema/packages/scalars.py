"""Scalars: the rules by which a scalar is read as a type, one set for YAML (serde_yaml 0.9) and one for JSON (serde_json).

Law: the wanted type decides. `80` into a string is the text "80" in YAML and an error in JSON; `yes` is never a boolean;
`070` is never a number. A method returns None where the scalar is not of the wanted kind.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import Protocol

from bema.packages.nodes import Scalar

# Forms that serde_yaml 0.9 takes for numbers. Python's own are wider (`1_000`, `inf`, other scripts' digits), hence ASCII
# and a pattern before every int() and float().
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
# `007` is text, as in YAML 1.2 and unlike YAML 1.1, which reads it as octal
_PADDED = re.compile(r"[-+]?0\d+", re.ASCII)
# `yes` and `on` are not here: they left with YAML 1.1, and the model refuses them where it wants a boolean
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_NULL = frozenset(("null", "Null", "NULL", "~"))
_RADIX = {"0x": (16, re.compile("[0-9a-fA-F]+")), "0o": (8, re.compile("[0-7]+")), "0b": (2, re.compile("[01]+"))}
_TAG = "tag:yaml.org,2002:"
NULL_TAG = _TAG + "null"
# by kind of field: the tags that say what the field is anyway
TAGS_OF = {
    "text": (_TAG + "str",),
    "instant": (_TAG + "str",),
    "variant": (_TAG + "str",),
    "boolean": (_TAG + "bool",),
    "integer": (_TAG + "int",),
    "number": (_TAG + "float", _TAG + "int"),
}
_U64 = 2**64


class Scalars(Protocol):
    """How scalars are read; `blank` is what counts as an empty collection, `null` what counts as an absent option."""

    def text(self, scalar: Scalar) -> str | None: ...
    def boolean(self, scalar: Scalar) -> bool | None: ...
    def integer(self, scalar: Scalar) -> int | None: ...
    def number(self, scalar: Scalar) -> float | None: ...
    def null(self, scalar: Scalar) -> bool: ...
    def blank(self, scalar: Scalar) -> bool: ...
    def describe(self, scalar: Scalar) -> str: ...


class YamlScalars:
    def text(self, scalar: Scalar) -> str | None:
        return scalar.value  # the source text, whatever it looks like: `version: 1.10` stays "1.10"

    def boolean(self, scalar: Scalar) -> bool | None:
        if not _reads_as(scalar, "bool"):
            return None
        return True if scalar.value in _TRUE else False if scalar.value in _FALSE else None

    def integer(self, scalar: Scalar) -> int | None:
        return _unsigned(scalar.value) if _reads_as(scalar, "int") else None

    def number(self, scalar: Scalar) -> float | None:
        return _floating(scalar.value) if _reads_as(scalar, "float") else None

    def null(self, scalar: Scalar) -> bool:
        if scalar.style:
            return False
        if scalar.tag is not None:
            return scalar.tag == NULL_TAG and scalar.value in _NULL
        return not scalar.value or scalar.value in _NULL

    def blank(self, scalar: Scalar) -> bool:
        return not scalar.value and not scalar.style

    def describe(self, scalar: Scalar) -> str:
        value = scalar.value
        if scalar.style or scalar.tag == _TAG + "str":
            return f'string "{value}"'
        if not value or value in _NULL:
            return "unit value"
        if value in _TRUE or value in _FALSE:
            return f"boolean `{value.lower()}`"
        sign = "-" if value.startswith("-") else ""
        whole = _unsigned(value.removeprefix("-"))
        if whole is not None:
            return f"integer `{sign}{whole}`"
        floating = None if _PADDED.fullmatch(value) else _floating(value)
        return f'string "{value}"' if floating is None else f"floating point `{floating:g}`"


class JsonScalars:
    def text(self, scalar: Scalar) -> str | None:
        return scalar.value if scalar.style else None  # a number is never text: JSON clients are answered 422

    def boolean(self, scalar: Scalar) -> bool | None:
        return None if scalar.style else {"true": True, "false": False}.get(scalar.value)

    def integer(self, scalar: Scalar) -> int | None:
        # 2**64 has 20 digits; of far longer texts int() is slow, and from 4,300 on it raises
        whole = not scalar.style and scalar.value.isdigit() and len(scalar.value) <= 20
        value = int(scalar.value) if whole else _U64
        return value if value < _U64 else None

    def number(self, scalar: Scalar) -> float | None:
        if scalar.style or not _FLOAT.fullmatch(scalar.value):
            return None
        value = float(scalar.value)  # serde_json refuses 1e400 as out of range; Python makes it infinite
        return value if math.isfinite(value) else None

    def null(self, scalar: Scalar) -> bool:
        return not scalar.style and scalar.value == "null"

    def blank(self, scalar: Scalar) -> bool:
        return False

    def describe(self, scalar: Scalar) -> str:
        if scalar.style:
            return f'string "{scalar.value}"'
        if scalar.value == "null":
            return "null"
        if scalar.value in ("true", "false"):
            return f"boolean `{scalar.value}`"
        whole = scalar.value.removeprefix("-").isdigit()
        return f"integer `{scalar.value}`" if whole else f"floating point `{float(scalar.value):g}`"


def _reads_as(scalar: Scalar, tag: str) -> bool:
    """Plain text is read whatever its tag says; a literal block only under the tag of the wanted kind."""
    return not scalar.style or (scalar.style == "|" and scalar.tag == _TAG + tag)


def _unsigned(text: str) -> int | None:
    digits = text.removeprefix("+")
    radix, form = _RADIX.get(digits[:2], (10, None))
    if form is not None:
        value = int(digits[2:], radix) if form.fullmatch(digits, 2) and len(digits) <= 70 else None
    elif _PADDED.fullmatch(text) or not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        return None
    else:
        value = int(digits)
    return value if value is not None and value < _U64 else None


def _floating(text: str) -> float | None:
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned in (".inf", ".Inf", ".INF"):
        return -math.inf if text.startswith("-") else math.inf
    if text in (".nan", ".NaN", ".NAN"):
        return math.nan
    value = float(text) if _FLOAT.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


# Kubernetes quantities: what is one, and how much it is


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


# instants as the model keeps them: RFC 3339, turned to UTC, printed with as many fraction digits as they need


_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):?(\d\d))", re.ASCII)


def to_utc(text: str) -> str | None:
    """`2026-03-02T10:00:00+02:00` becomes `2026-03-02T08:00:00Z`; None where it is not an instant."""
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    date, minute, second, fraction, _zulu, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    # 60 is a leap second, which chrono takes and datetime does not: the seconds never pass through datetime
    if int(second) > 60 or int(minutes or 0) > 59 or offset >= timedelta(days=1):
        return None
    try:
        local = datetime.fromisoformat(f"{date}T{minute}:00")
        utc = local + offset if sign == "-" else local - offset
    except (ValueError, OverflowError):
        return None
    return f"{utc:%Y-%m-%dT%H:%M}:{second}{_fraction(fraction or '')}Z"


def _fraction(digits: str) -> str:
    """Nothing, three, six or nine digits: the fewest that lose nothing; beyond nanoseconds is cut."""
    nano = digits[:9].ljust(9, "0")
    for kept in (0, 3, 6, 9):
        if not nano[kept:].strip("0"):
            return f".{nano[:kept]}" if kept else ""
    raise AssertionError("nine digits always suffice")
