"""A profile as a flame graph: one SVG that needs nothing else, to be opened in a browser.

Law: what a box is as wide as is the weight of the stacks in it, and the boxes above it are what it called. Names come from
a script: they are written as text, never as markup.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any
from xml.sax.saxutils import escape, quoteattr

_WIDTH, _ROW, _EDGE = 1200, 18, 8  # pixels
_NARROWEST = 0.3  # pixels: narrower boxes are left out
_LETTER = 6.6  # pixels
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Box:
    """What was found on the way to one frame: its weight in microseconds, and what it called, by number."""

    def __init__(self) -> None:
        self.weight = 0
        self.called: dict[int, Box] = {}

    def add(self, stack: list[int], weight: int) -> None:
        self.weight += weight
        box = self
        for frame in stack:
            box = box.called.setdefault(frame, Box())
            box.weight += weight

    def depth(self) -> int:
        deepest, row = 0, [self]
        while row := [called for box in row for called in box.called.values()]:
            deepest += 1
        return deepest


def total(profile: dict[str, Any]) -> int:
    """Microseconds in all its stacks."""
    return sum(weight for weight, _ in profile["stacks"])


def draw(profile: dict[str, Any], title: str) -> str:
    """The SVG. The outermost frames are below, and what is wide is what takes long."""
    root = Box()
    for weight, stack in profile["stacks"]:
        root.add(stack, weight)
    height = (root.depth() + 1) * _ROW + 2 * _EDGE + 2 * _ROW
    boxes = "\n".join(_boxes(root, profile["frames"], height - _EDGE - _ROW))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        ' font-family="monospace" font-size="11">\n'
        f"<title>{_text(title)}</title>\n"
        f'<rect width="100%" height="100%" fill="#fffdf7"/>\n'
        f'<text x="{_EDGE}" y="{_EDGE + 12}" font-size="14">{_text(title)}</text>\n'
        f"{boxes}\n</svg>\n"
    )


def _boxes(root: Box, frames: list[list[Any]], bottom: int) -> Iterator[str]:
    if not root.weight:
        return
    scale = (_WIDTH - 2 * _EDGE) / root.weight
    yield _box(_EDGE, bottom, root.weight * scale, "all", f"all: {root.weight / 1e6:.2f} s", "#d9d2c0")
    # not by recursion: a stack is as deep as the script likes
    waiting = [(root, float(_EDGE), bottom - _ROW)]
    while waiting:
        box, left, y = waiting.pop()
        for number, called in sorted(box.called.items()):
            width = called.weight * scale
            if width >= _NARROWEST:
                file, function, line = frames[number]
                share = f"{called.weight / 1e6:.2f} s, {100 * called.weight / root.weight:.1f} %"
                said = f"{function} ({file}:{line}): {share}"
                yield _box(left, y, width, f"{function} {PurePath(file).name}", said, _colour(file))
                waiting.append((called, left, y - _ROW))
            left += width


def _box(left: float, y: int, width: float, label: str, said: str, colour: str) -> str:
    room = int((width - 4) / _LETTER)
    shown = label if len(label) <= room else label[: room - 2] + ".." if room > 3 else ""
    text = f'<text x="{left + 2:.1f}" y="{y + 13}">{_text(shown)}</text>' if shown else ""
    return (
        f'<g><title>{_text(said)}</title><rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}"'
        f' rx="1" fill={quoteattr(colour)}/>{text}</g>'
    )


def _colour(file: str) -> str:
    """Warm, and the same for all functions of a file."""
    number = zlib.crc32(file.encode("utf-8", "replace"))
    return f"hsl({number % 60},{60 + number // 60 % 30}%,{62 + number // 1800 % 14}%)"


def _text(text: str) -> str:
    # what XML does not know would make the whole drawing unreadable
    return escape(_CONTROL.sub("?", text))
