"""Nodes: the syntax tree of a document: scalars, sequences and mappings with their offsets in the text.

Law: a node keeps offsets only; lines and columns are computed for the few places that are reported.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property

BREAK = re.compile(r"\r\n|\n|\r")
_PROPERTY = r"(?:!<[^>\s]*>|![^\s,\[\]{}]*|&[^\s,\[\]{}]+)"
# an anchor and a tag, in either order; comments may stand between them and the value
_PROPERTIES = re.compile(rf"(?:{_PROPERTY}(?:\s|(?<=\s)#[^\r\n]*)*)+")
_ANCHOR = re.compile(r"(?<!\S)&[^\s,\[\]{}]+")


class Scalar:
    """`style` is the opening mark: '' for a plain scalar (in JSON: a number or a word), else the quote or '|' or '>'."""

    __slots__ = ("end", "start", "style", "tag", "value")

    def __init__(self, value: str, style: str, start: int, end: int, tag: str | None = None) -> None:
        self.value = value
        self.style = style
        self.start = start
        self.end = end
        self.tag = tag


class Sequence:
    __slots__ = ("end", "items", "start")

    def __init__(self, start: int) -> None:
        self.items: list[Node] = []
        self.start = start
        self.end = start


class Mapping:
    __slots__ = ("end", "flow", "pairs", "start")

    def __init__(self, start: int, flow: bool) -> None:
        self.pairs: list[tuple[Node, Node]] = []
        self.flow = flow
        self.start = start
        self.end = start


Node = Scalar | Sequence | Mapping
Path = tuple[str | int, ...]


class Source:
    """The text of a document and where its lines begin."""

    def __init__(self, text: str, name: str = "", is_json: bool = False, whole: bool = True) -> None:
        self.text = text
        self.name = name
        self.is_json = is_json
        self.whole = whole  # whether the text is all of the file; if not, it must never be written back

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(found.end() for found in BREAK.finditer(self.text))]

    def line_end(self, offset: int) -> str:
        """How the line of an offset ends; the last line, which may end in nothing, as the one before it."""
        found = BREAK.search(self.text, offset)
        if found is not None:
            return found.group()
        # from two characters before the last line, whose break may be CR and LF
        before = BREAK.search(self.text, max(self._starts[-1] - 2, 0)) if len(self._starts) > 1 else None
        return before.group() if before else "\n"

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def content_start(text: str, node: Node) -> int:
    """Where a value begins, behind its anchor and its tag and what comments stand between."""
    if text[node.start : node.start + 1] not in ("&", "!"):
        return node.start
    found = _PROPERTIES.match(text, node.start)
    return min(found.end(), max(node.end, node.start)) if found else node.start


def anchor_of(text: str, node: Node) -> str:
    """`&name ` where the node has an anchor: what takes its place must keep it, or aliases would name nothing."""
    found = _ANCHOR.search(text, node.start, content_start(text, node))
    return f"{found.group()} " if found else ""


def path_text(path: Path) -> str:
    """A path as the Rust model writes it: `classes[0].function_bindings[1].name`; "." is the whole document."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "."


def find(node: Node | None, path: Path) -> Node | None:
    """The node at a path, or the nearest one above it that exists."""
    for step in path:
        below = _step(node, step)
        if below is None:
            return node
        node = below
    return node


def _step(node: Node | None, step: str | int) -> Node | None:
    if isinstance(node, Sequence) and isinstance(step, int):
        return node.items[step] if step < len(node.items) else None
    if isinstance(node, Mapping):
        return next(
            (value for key, value in reversed(node.pairs) if isinstance(key, Scalar) and key.value == step), None
        )
    return None
