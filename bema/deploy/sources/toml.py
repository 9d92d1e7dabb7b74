"""TOML that a stranger wrote: measured before it is parsed.

Law: what is parsed here takes time and memory in proportion to its length. The parser of the standard library does not by
itself: a dotted key costs the square of its parts (64 KB of one took 25 s, 200 KB took 22 GB), each open bracket a level of
its stack. Both are counted in one pass over the text; a length is for the caller to bound.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

PARTS = 16
"""The most parts of a dotted key."""
DEPTH = 32
"""The most brackets open at once."""
_LONGEST = 300
"""Of what the parser says: it may repeat a key, and a key may be as long as the text."""

# Up to its first error the parser sees the strings that this sees, and it reads no further than
# that. Nothing here gives back what it took (`*+`), so one pass is one pass.
_TOKEN = re.compile(
    r'''
      """(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5} | \'\'\'(?:[^']|'{1,2}(?!'))*+'{3,5} | (?P<long>"""|\'\'\')
    | "(?:[^"\\\n]|\\.)*+" | '[^'\n]*+' | (?P<short>["'])
    | \#[^\n]*+ | [^"'\#\[\]{}.=,\n]++ | (?P<mark>[\[\]{}.=,\n])
    ''',
    re.X | re.S,
)
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class TomlError(ValueError):
    """What is wrong, and on which line of the text."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem if len(problem) <= _LONGEST else problem[:_LONGEST] + "...")
        self.line = line


def parse(text: str) -> dict[str, Any]:
    """The table of a TOML document; `TomlError` for what is none, and for keys or nesting over the bounds."""
    _measure(text)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise TomlError("the TOML is nested too deeply", 1) from error
    # not TOMLDecodeError alone: an integer of 5000 digits is a plain ValueError
    except ValueError as error:
        found = _AT_LINE.search(str(error))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        raise TomlError(_AT_LINE.sub("", str(error)), line if found else 1) from error


def _measure(text: str) -> None:
    depth, parts = 0, 1
    for token in _TOKEN.finditer(text):
        # a string without an end: here the parser stops, and so must we, who would look for the end
        # of each that might begin behind
        if token["long"] or token["short"]:
            return
        match token["mark"]:
            case None:
                continue
            case ".":
                parts += 1
            case mark:
                parts = 1
                depth = max(0, depth + (mark in "[{") - (mark in "]}"))
        if parts > PARTS or depth > DEPTH:
            what = f"a key has more than {PARTS} parts" if parts > PARTS else f"it is nested deeper than {DEPTH} levels"
            raise TomlError(what, text.count("\n", 0, token.start()) + 1)


def inline(value: object) -> str:
    """A value in one line of TOML. `TypeError` for one that JSON has no type for, such as a date."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{inline(key)} = {inline(each)}" for key, each in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(inline, value)) + "]"
        case float():
            return repr(value)
        case str() | int():
            # of what JSON leaves as it is, TOML takes all but one
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise TypeError(f"a value of {type(value).__name__} is not taken")
