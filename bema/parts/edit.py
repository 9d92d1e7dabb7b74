"""Edits of a settings file. Law: the list of disabled plugins changes, and no other character of the file. Pure."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from itertools import zip_longest

from bema.core.errors import Refused

_HEADER = re.compile(r"^[ \t]*\[{1,2}([^\]\n]+)\]{1,2}[ \t]*(?:#.*)?$", re.M)
_KEY = re.compile(r"^[ \t]*disable[ \t]*=[ \t]*(?=\[)", re.M)


def with_disabled(text: str, table: Sequence[str], disabled: Sequence[str]) -> str:
    """`text` with `disable = [...]` in `table`; `Refused` where the file is written in a way this cannot change safely."""
    line = f"disable = {json.dumps(list(disabled))}"
    span = _section(text, table)
    if span is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        changed = f"{text}{gap}[{'.'.join(table)}]\n{line}\n"
    else:
        start, end = span
        key = _KEY.search(text, start, end)
        if key is None:
            changed = f"{text[:start]}\n{line}{text[start:]}"
        else:
            begin = text.index("disable", key.start())
            changed = text[:begin] + line + text[_after_list(text, key.end()) :]
    # the text was changed by pattern; that it now says what was meant is read, not believed
    if _read(changed, table) != list(disabled):
        raise Refused(
            "the settings file is written in a way that cannot be changed here", fix=f"Write `{line}` yourself."
        )
    return changed


def _section(text: str, table: Sequence[str]) -> tuple[int, int] | None:
    """Where the body of a table starts (the end of its header's line) and ends."""
    headers = list(_HEADER.finditer(text))
    for header, following in zip_longest(headers, headers[1:]):
        if [part.strip().strip("\"'") for part in header.group(1).split(".")] == list(table):
            return header.end(), following.start() if following else len(text)
    return None


def _after_list(text: str, start: int) -> int:
    depth, quote, position = 0, "", start
    while position < len(text):
        character = text[position]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            position = text.find("\n", position)
            if position < 0:
                break
        depth += {"[": 1, "]": -1}.get(character, 0) if not quote else 0
        position += 1
        if depth == 0:
            return position
    return len(text)


def _read(text: str, table: Sequence[str]) -> object:
    try:
        found: object = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    for part in (*table, "disable"):
        found = found.get(part) if isinstance(found, dict) else None
    return found
