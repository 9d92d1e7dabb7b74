"""What a build does just now, taken from what uv says of itself while it works.

Law: what tells of progress is no complaint: it is shown while it is true, and is in no error.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Told = Callable[[str], None]

_LONGEST = 200  # characters; names come from an index
# the words in which uv tells of a step: a line is one of these, or a part of a complaint
_STEPS = (
    (re.compile(r"Downloading (\S+) \((\S+)\)"), "downloading {0} ({1})"),
    (re.compile(r" *Downloaded (\S+)"), "downloaded {0}"),
    (re.compile(r" *Building (\S+)(?: @ .*)?"), "building {0}"),
    (re.compile(r" *Built (\S+)(?: @ .*)?"), "built {0}"),
    (re.compile(r" *Updating (\S+)(?: \(.*\))?"), "fetching {0}"),
    (re.compile(r"Resolved (\d+ packages?) in .*"), "resolved {0}"),
    (re.compile(r"Prepared (\d+ packages?) in .*"), "prepared {0}"),
    (re.compile(r"Installed (\d+ packages?) in .*"), "installed {0}, compiling"),
)


def unheard(step: str) -> None:
    """Told by a build that nobody watches."""


def step_of(line: str) -> str:
    """What a line of uv tells of its progress; empty where it tells of none."""
    for pattern, says in _STEPS:
        if (found := pattern.fullmatch(line.rstrip())) is not None:
            return says.format(*found.groups())[:_LONGEST]
    return ""
