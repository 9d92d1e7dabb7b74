"""What several commands take in one spelling."""

from __future__ import annotations

import re
from typing import Final

from bema.core.errors import Invalid

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def seconds_of(text: str, option: str) -> int:
    """A time as `30d` or `90s`; `Invalid` (usage) names the option where it is none."""
    found = re.match(r"([1-9][0-9]{0,8})([smhdw])\Z", text)
    if found is None:
        raise Invalid(f"{option} is {text!r}, not a number with s, m, h, d or w", code="usage")
    return int(found[1]) * _UNITS[found[2]]
