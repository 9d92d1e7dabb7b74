"""Instants as the model keeps them: RFC 3339, turned to UTC, printed with as many fraction digits as they need."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

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
