"""Brackets: the items of a `[...]` or `{...}`, put in and taken out with their commas.

Law: a collection keeps its look. Where each item has a line of its own, a new one gets a line too, and one that goes takes
its line along; else items come and go within the line.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from bema.packages.layout import Layout
from bema.packages.nodes import Mapping, Sequence

Span = tuple[int, int]


class Editor(Protocol):
    """What takes down the changes to a text."""

    def replace(self, start: int, end: int, text: str) -> None: ...
    def remove(self, start: int, end: int) -> None: ...
    def take_away(self, start: int, end: int) -> None: ...


class Brackets:
    def __init__(self, layout: Layout, editor: Editor, node: Sequence | Mapping, spans: list[Span]) -> None:
        self._layout = layout
        self._editor = editor
        self._spans = spans
        self._open = layout.content_start(node)
        self._close = node.end - 1
        self._tall = layout.is_tall(node)
        self._commas = [self._comma(index) for index in range(len(spans))]

    def _comma(self, index: int) -> int | None:
        limit = self._spans[index + 1][0] if index + 1 < len(self._spans) else self._close
        # between an item and its comma may stand comments and line ends
        at = self._layout.skip(self._spans[index][1])
        return at if at < limit and self._layout.text[at] == "," else None

    def _end(self, index: int) -> int:
        """Behind an item and its comma."""
        comma = self._commas[index]
        return self._spans[index][1] if comma is None else comma + 1

    def _has_lines(self, index: int) -> bool:
        start, end = self._spans[index][0], self._end(index)
        # the line of the closing bracket is not the item's to take along
        return self._layout.begins_line(start) and self._layout.ends_line(end) and not self._beyond(end)

    def _beyond(self, end: int) -> bool:
        return self._layout.next_line(end) > self._close

    def _lines(self, index: int) -> Span:
        start = self._spans[index][0]
        first, last = self._layout.lines(start, self._end(index), self._layout.column(start))
        return first, min(last, self._layout.line_start(self._close))

    def take_out(self, gone: Set[int], moved: Set[int] = frozenset(), put_in: bool = False, last: bool = False) -> None:
        """Remove items with what belongs to them; others may have been put in, and at the end."""
        kept = [index for index in range(len(self._spans)) if index not in gone]
        if not kept and not put_in and "#" not in self._layout.text[self._open : self._close]:
            self._editor.remove(self._open + 1, self._close)  # `[]`, whatever space was in it
            return
        for index in sorted(gone):
            start, end = self._lines(index) if self._has_lines(index) else self._within_line(index)
            (self._editor.take_away if index in moved else self._editor.remove)(start, end)
        tail = kept[-1] if kept else None
        # JSON takes no comma behind the last item; YAML does, and keeps one that was there
        if tail is None or tail == len(self._spans) - 1 or last or self._commas[-1] is not None:
            return
        comma = self._commas[tail]
        assert comma is not None, "an item follows"
        text = self._layout.text
        following = self._spans[tail + 1][0]
        inline = not text[comma + 1 : following].strip() and not self._has_lines(tail + 1)
        self._editor.replace(comma, following if inline else comma + 1, "")

    def _within_line(self, index: int) -> Span:
        start, end = self._spans[index][0], self._end(index)
        text = self._layout.text
        while text[end : end + 1] in (" ", "\t"):
            end += 1
        if text[end : end + 1] == "#":
            return start, len(text[: self._layout.next_line(end)].rstrip("\r\n"))
        return start, end

    def put_in(self, texts: list[str | int], start: int, gone: Set[int]) -> bool:
        """New items behind the last that stays before `start`, an index being one that moves; whether they are last now."""
        kept = [index for index in range(len(self._spans)) if index not in gone]
        before = [index for index in kept if index < start]
        more = len(kept) > len(before)
        if self._tall and (self._has_lines(before[-1]) if before else self._has_lines(0) or not more):
            self._put_lines(texts, before[-1] if before else None, more)
            return not more
        words = [self._text(text) for text in texts]
        if before:
            # in front of that comma: what follows then need not be known
            at = self._spans[before[-1]][1]
            self._editor.replace(at, at, "".join(f", {text}" for text in words))
            return False  # the comma of the one before is behind them
        at = self._open + 1
        behind = ", " if more else " " if self._layout.text[at] == "#" else ""
        self._editor.replace(at, at, ", ".join(words) + behind)
        return not more

    def _text(self, text: str | int) -> str:
        return text if isinstance(text, str) else self._layout.text[slice(*self._spans[text])]

    def _put_lines(self, texts: list[str | int], before: int | None, more: bool) -> None:
        first = self._spans[before or 0][0]
        if before is None:
            at = self._lines(0)[0] if self._has_lines(0) else self._layout.line_start(first)
        else:
            at = self._lines(before)[1]
            if self._commas[before] is None:
                end = self._spans[before][1]
                self._editor.replace(end, end, ",")
        indent = self._layout.text[self._layout.line_start(first) : first]
        line_end = self._layout.source.line_end(first)
        lines = []
        for number, text in enumerate(texts, start=1):
            comma = "," * (number < len(texts) or more or self._commas[-1] is not None)
            if isinstance(text, int) and self._has_lines(text):
                lines.append(self._moving_lines(text, comma))
            else:
                lines.append(f"{indent}{self._text(text)}{comma}{line_end}")
        self._editor.replace(at, at, "".join(lines))

    def _moving_lines(self, index: int, comma: str) -> str:
        """The lines of an item with its comments."""
        (start, end), text, there = self._lines(index), self._layout.text, self._commas[index]
        behind = self._spans[index][1] if there is None else there
        return text[start:behind] + comma + text[self._end(index) : end]
