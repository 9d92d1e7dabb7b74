"""Edited: a document that a person keeps, changed where it must be and nowhere else.

Law: text that is not edited keeps its bytes. An edit replaces the span of one value, or inserts or removes whole lines or
items; so comments, quotes, spellings of numbers, line ends and the order stay because nothing touches them. The comment
lines directly above an item, and those inside of it, move and go with it; all others stay.

`EditedMapping` and `EditedList` are used like the dictionaries and lists that they show; `Edited.text()` is what comes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from collections.abc import Mapping as AnyMapping
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from bema.core.errors import Invalid
from bema.packages.findings import Edit
from bema.packages.nodes import Mapping, Node, Scalar, Sequence, Source
from bema.packages.writer import scalar, to_yaml

_COMMENT = re.compile(r"(?:^|(?<=[ \t\r\n]))#[^\r\n]*")


class Edited:
    """The text of a document and the changes to it; `root` is its mapping."""

    def __init__(self, source: Source, root: Mapping) -> None:
        self.source = source
        self.text_before = source.text
        self.line_end = "\r\n" if "\r\n" in source.text else "\n"
        self.edits: list[Edit] = []
        self.removed: list[tuple[int, int]] = []
        self.moved = False  # something was taken to another place with its comments
        self._twice(root)
        self.root = EditedMapping(self, root)

    def text(self) -> str:
        """The text with every change; called once."""
        self.root.flush()
        text, end = [], 0
        # of what is put in at one place the inner comes first, and it was recorded first
        for edit in sorted(self.edits, key=lambda edit: (edit.start, edit.end)):
            if edit.start < end:
                raise self.refusal(edit.start, "two changes meet here")
            text += [self.text_before[end : edit.start], edit.text]
            end = edit.end
        return "".join([*text, self.text_before[end:]])

    def refusal(self, offset: int, why: str, fix: str = "Write it more plainly.") -> Invalid:
        line, column = self.source.place(offset)
        name = self.source.name or "the document"
        return Invalid(f"{name}:{line}:{column}: cannot be edited: {why}", code="bad_document", fix=fix)

    def _twice(self, root: Node) -> None:
        """The model takes a key of `config` twice and keeps the last: which one is meant is the person's to say."""
        for node in walk(root):
            if isinstance(node, Mapping):
                seen = set()
                for key in (key for key, _ in node.pairs if isinstance(key, Scalar)):
                    if key.value in seen:
                        raise self.refusal(key.start, f"found duplicate key {key.value!r}", "Keep one.")
                    seen.add(key.value)

    # text

    def replace(self, start: int, end: int, text: str) -> None:
        self.edits.append(Edit(start, end, text))

    def remove(self, start: int, end: int) -> None:
        self.removed.append((start, end))
        self.replace(start, end, "")

    def replace_by_nothing(self, start: int, end: int) -> None:
        """Take out what is put in elsewhere: its comments are not gone."""
        self.moved = True
        self.replace(start, end, "")

    def put_lines(self, after: int, lines: list[str]) -> None:
        """New lines behind the line that an offset is in."""
        at, text = self.next_line(after), self.text_before
        before = "" if at == 0 or text[at - 1] in "\r\n" else self.line_end
        self.replace(at, at, before + "".join(line + self.line_end for line in lines))

    def line_start(self, offset: int) -> int:
        return max(self.text_before.rfind("\n", 0, offset), self.text_before.rfind("\r", 0, offset)) + 1

    def next_line(self, offset: int) -> int:
        found = re.compile(r"\r\n|\n|\r").search(self.text_before, offset)
        return found.end() if found else len(self.text_before)

    def column(self, offset: int) -> int:
        return offset - self.line_start(offset)

    def with_comments_above(self, line: int) -> int:
        """Where the comment lines that stand directly above a line begin."""
        while line > 0:
            above = self.line_start(line - 1 if self.text_before[line - 2 : line] != "\r\n" else line - 2)
            if not self.text_before[above:line].lstrip(" \t").startswith("#"):
                return line
            line = above
        return line

    def content_end(self, node: Node) -> int:
        """Where a value ends, without the comments and empty lines that a parser adds to it."""
        if isinstance(node, Scalar):
            text = self.text_before[node.start : node.end]
            return node.start + len(text.rstrip()) if node.style in ("|", ">") else node.end
        if self.is_flow(node):
            return node.end
        parts = node.items if isinstance(node, Sequence) else [part for pair in node.pairs for part in pair]
        # what an alias stands for is written elsewhere
        ends = [self.content_end(part) for part in parts if node.start <= part.start <= node.end]
        return max([node.start, *ends])

    def is_flow(self, node: Sequence | Mapping) -> bool:
        return (
            self.text_before[node.end - 1 : node.end] in ("]", "}")
            and (isinstance(node, Sequence) or node.flow or not node.pairs)
            and self._opens_with_bracket(node)
        )

    def _opens_with_bracket(self, node: Sequence | Mapping) -> bool:
        opening = re.compile(r"(?:[&!][^\s,\[\]{}]*\s+)*").match(self.text_before, node.start)
        at = opening.end() if opening else node.start
        return self.text_before[at : at + 1] in ("[", "{")

    def take_out_of_flow(
        self, node: Sequence | Mapping, spans: list[tuple[int, int]], gone: set[int], moved: Set[int] = frozenset()
    ) -> None:
        """Remove items of a `[...]` or `{...}` with their commas and the comments on their lines."""
        text, kept = self.text_before, [index for index in range(len(spans)) if index not in gone]
        for index in sorted(gone):
            start, end = spans[index]
            limit = spans[index + 1][0] if index + 1 < len(spans) else node.end - 1
            comma = re.compile(r"\s*,[ \t]*").match(text, end, limit)
            end = comma.end() if comma else end
            trailing = re.compile(r"[ \t]*#[^\r\n]*").match(text, end, limit)
            if index in moved:
                self.replace_by_nothing(start, end)
            else:
                self.remove(start, trailing.end() if trailing else end)
        tail = bool(kept) and len(spans) - 1 in gone and kept[-1]
        if tail is not False and re.fullmatch(r"\s*,\s*", between := text[spans[tail][1] : spans[tail + 1][0]]):
            self.replace(spans[tail][1], spans[tail][1] + len(between), "")

    def flow_text(self, value: Any, quoted: bool) -> str:
        """A value on one line; `quoted` where the document is JSON in all but its name."""
        if isinstance(value, AnyMapping):
            pairs = (f"{self.flow_text(k, quoted)}: {self.flow_text(v, quoted)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(self.flow_text(item, quoted) for item in value) + "]"
        return json.dumps(value, ensure_ascii=False) if quoted else scalar(value)


class EditedMapping:
    """A mapping of the document. Values that are mappings or lists of mappings are shown as such, others are only set."""

    def __init__(self, home: Edited, node: Mapping) -> None:
        self._home = home
        self._node = node
        self._pairs = {key.value: (key, value) for key, value in node.pairs if isinstance(key, Scalar)}
        self._shown: dict[str, EditedMapping | EditedList] = {}
        self._new: dict[str, Any] = {}
        self._gone: set[str] = set()

    def get(self, key: str) -> Any:
        return self[key] if key in self._new or key in self._pairs else None

    def __getitem__(self, key: str) -> Any:
        if key in self._new:
            return self._new[key]
        if key not in self._shown:
            value = self._pairs[key][1]
            if isinstance(value, Scalar):
                return None if _is_null(value) else value.value
            self._shown[key] = (
                EditedMapping(self._home, value) if isinstance(value, Mapping) else EditedList(self._home, value)
            )
        return self._shown[key]

    def __bool__(self) -> bool:
        return bool(self._pairs or self._new)

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self._pairs:
            self._new[key] = value
            return
        name, there = self._pairs[key]
        if isinstance(there, Sequence) and isinstance(value, list) and there.items:
            EditedList(self._home, there).become(value)
        elif isinstance(there, Sequence | Mapping):
            self._over(name, there, value)
        elif _is_null(there) and isinstance(value, AnyMapping | list) and value and not self._is_flow:
            self._home.replace(there.start, there.end, "")
            self._put_block({key: value}, self._home.content_end(there), head=False)
        else:
            self._over(name, there, value)

    def _over(self, name: Scalar, there: Node, value: Any) -> None:
        """One value in place of another, on its line."""
        home = self._home
        end = home.content_end(there)
        lead = " " if there.start == end and home.text_before[there.start - 1 : there.start] == ":" else ""
        comment = None if isinstance(there, Scalar) else _COMMENT.search(home.text_before, there.start, end)
        if comment is not None:
            raise home.refusal(comment.start(), f"the comment would go with the old value of {name.value!r}")
        home.replace(there.start, end, lead + home.flow_text(value, self._quoted))

    def __delitem__(self, key: str) -> None:
        self._gone.add(key)

    @property
    def _is_flow(self) -> bool:
        return self._home.is_flow(self._node)

    @property
    def _quoted(self) -> bool:
        keys = [key for key, _ in self._node.pairs if isinstance(key, Scalar)]
        return self._is_flow and bool(keys) and all(key.style == '"' for key in keys)

    def empty(self, key: str) -> None:
        """A list of which nothing is left, written as such: nothing at all would be null."""
        name, _ = self._pairs[key]
        colon = self._home.text_before.index(":", name.end)
        self._home.replace(colon + 1, colon + 1, " []")

    def flush(self) -> None:
        for key, shown in self._shown.items():
            if key not in self._gone:
                shown.flush()
                if isinstance(shown, EditedList) and shown.nothing_left():
                    self.empty(key)
        for key in self._gone:
            self._take_out(key)
        if self._new and self._is_flow:
            self._put_flow()
        elif self._new:
            kept = [value for key, value in self._pairs.items() if key not in self._gone]
            if not kept and self._node.pairs:
                raise self._home.refusal(self._node.start, "nothing would be left of it")
            ends = [max(key.end, self._end_of(key, value)) for key, value in self._pairs.values()]
            self._put_block(self._new, max(ends, default=len(self._home.text_before)))

    def _end_of(self, key: Scalar, value: Node) -> int:
        return self._home.content_end(value) if value.start >= key.end else key.end

    def _put_block(self, pairs: dict[str, Any], after: int, head: bool = True) -> None:
        indent = " " * (self._home.column(self._node.pairs[0][0].start) if self._node.pairs else 0)
        lines = to_yaml(pairs).splitlines()
        self._home.put_lines(after, [indent + line for line in (lines if head else lines[1:])])

    def _put_flow(self) -> None:
        home, quoted = self._home, self._quoted
        text = ", ".join(f"{home.flow_text(k, quoted)}: {home.flow_text(v, quoted)}" for k, v in self._new.items())
        kept = [pair for key, pair in self._pairs.items() if key not in self._gone]
        if kept:
            at = self._end_of(*kept[-1])
            home.replace(at, at, ", " + text)
        else:
            at = home.text_before.index("{", self._node.start) + 1
            home.replace(at, at, text + (", " if self._pairs and home.text_before[at : at + 1] != "}" else ""))

    def _take_out(self, key: str) -> None:
        home = self._home
        if self._is_flow:
            names = list(self._pairs)
            spans = [(k.start, self._end_of(k, v)) for k, v in self._pairs.values()]
            home.take_out_of_flow(self._node, spans, {names.index(key)})
            return
        name, value = self._pairs[key]
        start, end = home.line_start(name.start), home.next_line(self._end_of(name, value))
        if home.text_before[start : name.start].strip():  # it shares its line with the dash of an item
            after = [k.start for k, _ in self._pairs.values() if k.start > name.start]
            if not after:
                raise home.refusal(name.start, "nothing would be left of it")
            home.remove(name.start, min(after))
            return
        home.remove(home.with_comments_above(start), end)


class EditedList:
    """A list of the document."""

    def __init__(self, home: Edited, node: Sequence) -> None:
        self._home = home
        self._node = node
        self._shown: dict[int, EditedMapping] = {}
        self._added: list[Any] = []
        self._gone: set[int] = set()
        self._moved: set[int] = set()  # of those that go: what is put in again elsewhere

    def __bool__(self) -> bool:
        return bool(self._node.items)

    def __getitem__(self, index: int) -> Any:
        if index not in self._shown:
            item = self._node.items[index]
            if not isinstance(item, Mapping):
                raise self._home.refusal(self._node.start, "a mapping was expected here")
            self._shown[index] = EditedMapping(self._home, item)
        return self._shown[index]

    def __delitem__(self, index: int) -> None:
        self._gone.add(index)

    def append(self, item: Any) -> None:
        self._added.append(item)

    def nothing_left(self) -> bool:
        """Whether a block of items has become empty."""
        empty = len(self._gone) == len(self._node.items) and not self._added
        return empty and bool(self._node.items) and not self._home.is_flow(self._node)

    def become(self, values: list[Any]) -> None:
        """The items of `values`, of which those that are there already stay as they are written."""
        there = [item.value if isinstance(item, Scalar) else object() for item in self._node.items]
        changes = SequenceMatcher(None, there, values, autojunk=False).get_opcodes()
        free = [index for what, start, end, _, _ in changes if what != "equal" for index in range(start, end)]
        self._gone.update(free)
        for what, start, end, first, last in changes:
            if what == "equal":
                continue
            new = []
            for value in values[first:last]:
                moved = next((index for index in free if there[index] == value), None)
                if moved is not None:
                    free.remove(moved)
                    self._moved.add(moved)
                new.append(value if moved is None else _Moved(*self._region(moved)))
            self._put_in(new, start, end)
        self._take_out()

    def _region(self, index: int) -> tuple[int, int]:
        """An item with what belongs to it: of a block whole lines, of a flow its text."""
        home, item = self._home, self._node.items[index]
        if home.is_flow(self._node):
            return item.start, home.content_end(item)
        dash = self._dash(index)
        start = home.line_start(dash)
        if home.text_before[start:dash].strip():
            raise home.refusal(dash, "items share a line here")
        return home.with_comments_above(start), home.next_line(self._item_end(index))

    def flush(self) -> None:
        for index, shown in self._shown.items():
            if index not in self._gone:
                shown.flush()
        if self._added:
            self._put_in(self._added, len(self._node.items), len(self._node.items))
        self._take_out()

    def _put_in(self, values: list[Any], start: int, end: int) -> None:
        """New items behind the one before `start`, or behind those up to `end`, which go."""
        if not values:
            return
        home, items = self._home, self._node.items
        if not home.is_flow(self._node):
            after = self._item_end(end - 1) if end else -1
            indent = " " * home.column(self._dash(0))
            lines = [line for value in values for line in self._lines_of(value, indent)]
            if end:
                home.put_lines(after, lines)
            else:
                at = home.line_start(self._dash(0))
                home.replace(at, at, "".join(line + home.line_end for line in lines))
            return
        quoted = bool(items) and all(isinstance(item, Scalar) and item.style == '"' for item in items)
        quoted = quoted or (
            bool(items) and all(isinstance(i, Mapping) and EditedMapping(home, i)._quoted for i in items)
        )
        text = ", ".join(
            value.text(home) if isinstance(value, _Moved) else home.flow_text(value, quoted) for value in values
        )
        kept = [index for index in range(start) if index not in self._gone]
        if kept:
            at = home.content_end(items[kept[-1]])
            home.replace(at, at, ", " + text)
        else:
            at = home.text_before.index("[", self._node.start) + 1
            home.replace(at, at, text + (", " if len(items) > len(self._gone) else ""))

    def _take_out(self) -> None:
        home, items = self._home, self._node.items
        if home.is_flow(self._node):
            if self._gone:
                spans = [(item.start, home.content_end(item)) for item in items]
                home.take_out_of_flow(self._node, spans, self._gone, self._moved)
            return
        for index in self._gone:
            (home.replace_by_nothing if index in self._moved else home.remove)(*self._region(index))

    def _lines_of(self, value: Any, indent: str) -> list[str]:
        if isinstance(value, _Moved):
            return value.text(self._home).splitlines()
        return [indent + line for line in _item_lines(value)]

    def _dash(self, index: int) -> int:
        item = self._node.items[index]
        before = self._item_end(index - 1) if index else self._node.start
        # a sequence begins at its first dash; what an alias stands for lies elsewhere, and is not looked for
        dash = self._node.start if index == 0 else self._home.text_before.rfind("-", before, item.start)
        if dash < 0 or self._home.text_before[dash : dash + 1] != "-":
            raise self._home.refusal(self._node.start, "an item that is an alias cannot be found", "Write it out.")
        return dash

    def _item_end(self, index: int) -> int:
        item = self._node.items[index]
        if not self._node.start <= item.start <= self._node.end:
            raise self._home.refusal(self._node.start, "an item that is an alias cannot be found", "Write it out.")
        return self._home.content_end(item)


class _Moved(NamedTuple):
    """An item that goes to another place as it is written."""

    start: int
    end: int

    def text(self, home: Edited) -> str:
        return home.text_before[self.start : self.end]


def _item_lines(value: Any) -> list[str]:
    """An item of a block list, its lines without the list's own indent."""
    if isinstance(value, AnyMapping) and value:
        lines = to_yaml(value).splitlines()
        return ["- " + lines[0], *("  " + line for line in lines[1:])]
    return ["- " + scalar(value)]


def _is_null(node: Scalar) -> bool:
    return not node.style and node.value in ("", "null", "~", "Null", "NULL")


def walk(root: Node) -> Iterator[Node]:
    """Every node once, keys too, however often an alias names it."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, Sequence):
            waiting += node.items
        elif isinstance(node, Mapping):
            waiting += [part for pair in node.pairs for part in pair]


def comments(text: str, root: Node) -> list[tuple[int, str]]:
    """(offset, comment) of every comment, in order: what begins with `#` behind a space or a line's start, in no scalar."""
    spans = sorted((node.start, node.end) for node in walk(root) if isinstance(node, Scalar) and node.end > node.start)
    found: list[tuple[int, str]] = []
    at = index = 0
    while (comment := _COMMENT.search(text, at)) is not None:
        start = comment.start()
        while index < len(spans) and spans[index][1] <= start:
            index += 1
        inside = index < len(spans) and spans[index][0] <= start and not _heads_block(text, spans[index][0], start)
        if not inside:
            found.append((start, comment.group()))
        at = spans[index][1] if inside else comment.end()
    return found


def _heads_block(text: str, start: int, at: int) -> bool:
    """Whether `at` is behind the mark with which a block scalar begins, on the line of that mark."""
    head = re.compile(r"(?:[&!]\S*\s+)*[|>][-+0-9]*[ \t]+(?=#)").match(text, start)
    return head is not None and head.end() == at
