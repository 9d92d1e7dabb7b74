"""Text from elsewhere as a terminal may be shown it.

Law: nothing that a script, a log or a peer wrote commands a terminal. Control characters, escape sequences with them, show
as what they are; so do the marks that turn the direction of text around, and halves of characters, which no encoding takes.
Line feed and tab stay: whoever prints one line only takes `visible_line`.
"""

from __future__ import annotations

import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_HALVES = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text with `\x1b` for an escape, and so on."""
    return _HIDDEN.sub(_escaped, text)


def visible_line(text: str) -> str:
    r"""The same as one line, with `\n` for a line feed."""
    return visible(text).replace("\n", "\\n")


def encodable(text: str) -> str:
    """The text with nothing changed but what no encoding takes."""
    return _HALVES.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
