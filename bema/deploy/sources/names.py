"""The name a script is deployed under when nobody names it."""

from __future__ import annotations

import re
from pathlib import PurePath


def name_of(path: PurePath) -> str:
    """A DNS label from a file's name; empty when nothing of it can be part of one."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:63].strip("-")
