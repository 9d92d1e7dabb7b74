"""Edited: a document that a person keeps, changed where it must be and nowhere else.

Law: text that is not edited keeps its bytes. An edit replaces the span of one value, or inserts or removes whole lines or
items; so comments, quotes, spellings of numbers, line ends and the order stay because nothing touches them. The comment
lines directly above an item, and those inside of it, move and go with it; all others stay.

`EditedMapping` and `EditedList` are used like the dictionaries and lists that they show; `Edited.text()` is what comes of it.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping as AnyMapping
from typing import Any, NamedTuple

from bema.core.errors import Invalid
from bema.packages.brackets import Brackets
from bema.packages.findings import Edit
from bema.packages.layout import COMMENT, Layout, block_head, walk
from bema.packages.nodes import BREAK, Mapping, Node, Scalar, Sequence, Source, anchor_of
from bema.packages.writer import scalar, to_yaml

_TAG = re.compile(r"(?<!\S)(?:!<[^>\s]*>|![^\s,\[\]{}]*)[ \t]*")
_TEXT_TAG = "tag:yaml.org,2002:str"


class Edited:
    """The text of a document and the changes to it; `root` is its mapping."""

    def __init__(self, source: Source, root: Mapping) -> None:
        self.source = source
        self.text_before = source.text
        self.layout = Layout(source)
        self.edits: list[Edit] = []
        self.removed: list[tuple[int, int]] = []
        self.moved = False  # something was taken to another place with its comments
        self._twice(root)
        self.root = EditedMapping(self, root)
        # JSON in all but its name, written with an indent: what is new in it is written so, too
        self.step = self.layout.column(root.pairs[0][0].start) if self.layout.is_tall(root) else 0

    def text(self) -> str:
        """The text with every change; called once."""
        self.root.flush()
        text, end = [], 0
        # of what is put in at one place the inner comes first, and it was recorded first
        for edit in sorted(self.edits, key=lambda edit: (edit.start, edit.end)):
            # two spans overlap only in a document of a form nobody tried: refused, not interleaved
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

    def take_away(self, start: int, end: int) -> None:
        """Take out what is put in elsewhere: its comments are not gone."""
        self.moved = True
        self.replace(start, end, "")

    def put_lines(self, at: int, lines: list[str]) -> None:
        """New lines where a line begins; at the end of a text that ends within a line, it ends within a line still."""
        text, line_end = self.text_before, self.source.line_end(at)
        if at and text[at - 1] not in "\r\n":
            self.replace(at, at, "".join(line_end + line for line in lines))
        else:
            self.replace(at, at, "".join(line + line_end for line in lines))

    def flow_text(self, value: Any, quoted: bool, indent: int | None = None) -> str:
        """A value in brackets; `quoted` where the document is JSON in all but its name, `indent` where it is spread."""
        if isinstance(value, AnyMapping):
            pairs = [
                f"{self.flow_text(k, quoted)}: {self.flow_text(v, quoted, self._deeper(indent))}"
                for k, v in value.items()
            ]
            return self._bracketed("{}", pairs, indent)
        if isinstance(value, list | tuple):
            items = [self.flow_text(item, quoted, self._deeper(indent)) for item in value]
            return self._bracketed("[]", items, indent)
        return json.dumps(value, ensure_ascii=False) if quoted else scalar(value)

    def _deeper(self, indent: int | None) -> int | None:
        return None if indent is None else indent + self.step

    def _bracketed(self, marks: str, parts: list[str], indent: int | None) -> str:
        if indent is None or not parts:
            return marks[0] + ", ".join(parts) + marks[1]
        between = "\n" + " " * (indent + self.step)
        return f"{marks[0]}{between}{f',{between}'.join(parts)}\n{' ' * indent}{marks[1]}"

    def spread(self, column: int) -> int | None:
        """The indent of what is written behind a key in that column, or None for one line."""
        return column if self.step else None


class EditedMapping:
    """A mapping of the document. Values that are mappings or lists of mappings are shown as such, others are only set."""

    def __init__(self, home: Edited, node: Mapping) -> None:
        self._home = home
        self._layout = home.layout
        self._node = node
        self._pairs = {key.value: (key, value) for key, value in node.pairs if isinstance(key, Scalar)}
        self._shown: dict[str, EditedMapping | EditedList] = {}
        self._new: dict[str, Any] = {}
        self._filled: dict[str, Any] = {}  # what comes below a key that is there with nothing behind it
        self._gone: set[str] = set()

    def get(self, key: str) -> Any:
        return self[key] if key in self._new or key in self._pairs else None

    def __getitem__(self, key: str) -> Any:
        for put in (self._new, self._filled):
            if key in put:
                return put[key]
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
            shown = EditedList(self._home, there)
            shown.become(value)
            if shown.nothing_left():
                self.empty(key)
        elif _is_empty(there) and isinstance(value, AnyMapping | list) and value:
            self._filled[key] = value  # more may be appended to it
        elif isinstance(there, Scalar) and there.style in ("|", ">"):
            self._over_block(there, value)
        else:
            self._over(name, there, value)

    def _comment_in(self, there: Node) -> re.Match[str] | None:
        """A comment within brackets that hold nothing else."""
        if isinstance(there, Scalar):
            return None
        return COMMENT.search(self._layout.text, there.start, self._layout.content_end(there))

    def _fill(self, key: str, value: Any) -> None:
        name, there = self._pairs[key]
        if self._is_flow or self._comment_in(there) or not _fits_block(there, value):
            self._over(name, there, value)
        else:
            self._as_block(key, there, value)

    def _as_block(self, key: str, there: Node, value: Any) -> None:
        """Items below a key that had none: nothing was behind it, or `[]`, or `null`."""
        start, end = self._layout.content_start(there), self._layout.content_end(there)
        # the space behind the colon goes with the brackets, unless a comment needs it
        space = self._layout.text[start - 1 : start] in (" ", "\t") and self._layout.text[end : end + 1] in "\r\n"
        self._home.replace(start - space, end, "")
        self._put_block({key: value}, self._layout.next_line(end), head=False)

    def _over(self, name: Scalar, there: Node, value: Any) -> None:
        """One value in place of another, on its line. Its anchor stays: aliases name it."""
        home, text = self._home, self._layout.text
        start, end = self._layout.content_start(there), self._layout.content_end(there)
        comment = self._comment_in(there)
        if comment is not None:
            raise home.refusal(comment.start(), f"the comment would go with the old value of {name.value!r}")
        tag = _TAG.search(text, there.start, start) if _tag_lies(there) else None
        if tag is not None:
            home.replace(tag.start(), tag.end(), "")
        # where nothing stood behind the colon, `key:` and a value would grow into one word
        lead = "" if text[start - 1 : start] in (" ", "\t", "\n", "\r", "-", "[", "{", ",") else " "
        new = home.flow_text(value, self._quoted, home.spread(self._layout.column(name.start)))
        home.replace(start, end, lead + new.replace("\n", home.source.line_end(start)))

    def _over_block(self, there: Scalar, value: Any) -> None:
        """A value in place of the lines of a block scalar; the comment behind its mark stays there."""
        text, start, end = self._layout.text, self._layout.content_start(there), self._layout.content_end(there)
        head = block_head(text, start)
        mark = head.group().rstrip() if head else BREAK.split(text[start:end])[0].rstrip()
        line = start + len(BREAK.split(text[start:])[0])
        self._home.replace(start, start + len(mark), self._home.flow_text(value, self._quoted))
        if line < end:
            self._home.replace(line, end, "")

    def __delitem__(self, key: str) -> None:
        self._gone.add(key)

    @property
    def _is_flow(self) -> bool:
        return self._layout.is_flow(self._node)

    @property
    def _quoted(self) -> bool:
        keys = [key for key, _ in self._node.pairs if isinstance(key, Scalar)]
        return self._is_flow and bool(keys) and all(key.style == '"' for key in keys)

    def empty(self, key: str) -> None:
        """A list of which nothing is left, written as such: nothing at all would be null."""
        name, value = self._pairs[key]
        start = self._layout.text.index(":", name.end) + 1
        named = anchor_of(self._layout.text, value).rstrip()
        at = self._layout.text.index(named, start) + len(named) if named else start
        self._home.replace(at, at, " []")

    def flush(self) -> None:
        # inner parts first: what is put in at one place stands in the order of recording
        for key, shown in self._shown.items():
            if key not in self._gone:
                shown.flush()
                if isinstance(shown, EditedList) and shown.nothing_left():
                    self.empty(key)
        for key, value in self._filled.items():
            self._fill(key, value)
        if self._is_flow:
            self._flush_flow()
            return
        for key in self._gone:
            self._take_out(key)
        if self._new:
            kept = [value for key, value in self._pairs.items() if key not in self._gone]
            if not kept and self._node.pairs:
                raise self._home.refusal(self._node.start, "nothing would be left of it")
            ends = [self._lines(key)[1] for key in self._pairs]
            self._put_block(self._new, max(ends, default=len(self._layout.text)))

    def _end_of(self, key: Scalar, value: Node) -> int:
        return max(key.end, self._layout.content_end(value)) if value.start >= key.end else key.end

    def _lines(self, key: str) -> tuple[int, int]:
        name, value = self._pairs[key]
        return self._layout.lines(name.start, self._end_of(name, value), self._layout.column(name.start))

    def _put_block(self, pairs: dict[str, Any], at: int, head: bool = True) -> None:
        indent = " " * (self._layout.column(self._node.pairs[0][0].start) if self._node.pairs else 0)
        lines = to_yaml(pairs).rstrip("\n").split("\n")
        self._home.put_lines(at, [indent + line for line in (lines if head else lines[1:])])

    def _brackets(self) -> Brackets:
        spans = [(k.start, self._end_of(k, v)) for k, v in self._pairs.values()]
        return Brackets(self._layout, self._home, self._node, spans)

    def _flush_flow(self) -> None:
        gone = {list(self._pairs).index(key) for key in self._gone}
        # put in first: which comma is to go depends on what is the last item now
        last = bool(self._new) and self._brackets().put_in(self._new_texts(), len(self._pairs), gone)
        if gone:
            self._brackets().take_out(gone, put_in=bool(self._new), last=last)

    def _new_texts(self) -> list[str | int]:
        home, quoted = self._home, self._quoted
        first = self._node.pairs[0][0].start if self._node.pairs else self._node.start
        indent = home.spread(self._layout.column(first)) if self._layout.is_tall(self._node) else None
        line_end = home.source.line_end(first)
        return [
            f"{home.flow_text(k, quoted)}: {home.flow_text(v, quoted, indent)}".replace("\n", line_end)
            for k, v in self._new.items()
        ]

    def _take_out(self, key: str) -> None:
        home, layout = self._home, self._layout
        name, _ = self._pairs[key]
        start, end = self._lines(key)
        if layout.begins_line(name.start):
            home.remove(start, end)
            return
        # it shares its line with the dash of an item: what follows moves up to the dash, from its first comment on
        if not any(k.start > name.start for k, _ in self._pairs.values()):
            raise home.refusal(name.start, "nothing would be left of it")
        following = re.compile(r"\s*").match(layout.text, end)
        home.remove(name.start, following.end() if following else end)


class EditedList:
    """A list of the document."""

    def __init__(self, home: Edited, node: Sequence) -> None:
        self._home = home
        self._layout = home.layout
        self._node = node
        self._shown: dict[int, EditedMapping] = {}
        self._added: list[Any] = []
        self._gone: set[int] = set()
        self._moved: set[int] = set()  # of those that go: what is put in again elsewhere
        self._put = False  # whether anything was put in, and whether it is the last now
        self._last_put_in = False

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
        empty = len(self._gone) == len(self._node.items) and not (self._added or self._put)
        return empty and bool(self._node.items) and not self._layout.is_flow(self._node)

    def become(self, values: list[Any]) -> None:
        """The items of `values`, of which those that are there already stay as they are written."""
        # what is no scalar equals nothing: it is replaced
        there = [item.value if isinstance(item, Scalar) else object() for item in self._node.items]
        # every lint imports this room, and only a list that is mended needs difflib
        matcher = importlib.import_module("difflib").SequenceMatcher
        # autojunk would take frequent items of long lists for noise, and rewrite them
        changes = matcher(None, there, values, autojunk=False).get_opcodes()
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
                new.append(value if moved is None else _Moved(moved))
            self._put_in(new, start, end)
        self._take_out()

    def _region(self, index: int) -> tuple[int, int]:
        """The lines of a block's item with what belongs to it."""
        dash = self._dash(index)
        if not self._layout.begins_line(dash):
            raise self._home.refusal(dash, "items share a line here")
        return self._layout.lines(dash, self._item_end(index), self._layout.column(dash))

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
        self._put = True
        home, layout = self._home, self._layout
        if layout.is_flow(self._node):
            self._last_put_in |= self._brackets().put_in([self._text_of(v) for v in values], start, self._gone)
            return
        indent = layout.text[layout.line_start(self._dash(0)) : self._dash(0)]
        lines = [line for value in values for line in self._lines_of(value, indent)]
        home.put_lines(self._region(end - 1)[1] if end else self._region(0)[0], lines)

    def _brackets(self) -> Brackets:
        spans = [(item.start, self._layout.content_end(item)) for item in self._node.items]
        return Brackets(self._layout, self._home, self._node, spans)

    def _text_of(self, value: Any) -> str | int:
        if isinstance(value, _Moved):
            return value.was
        items = self._node.items
        quoted = bool(items) and all(_is_quoted(self._home, item) for item in items)
        first = items[0].start if items else self._node.start
        tall = self._layout.is_tall(self._node) and any(self._layout.is_tall(item) for item in items)
        indent = self._home.spread(self._layout.column(first)) if tall else None
        return self._home.flow_text(value, quoted, indent).replace("\n", self._home.source.line_end(first))

    def _take_out(self) -> None:
        home = self._home
        if self._layout.is_flow(self._node):
            if self._gone:
                self._brackets().take_out(self._gone, self._moved, self._put, self._last_put_in)
            return
        for index in self._gone:
            (home.take_away if index in self._moved else home.remove)(*self._region(index))

    def _lines_of(self, value: Any, indent: str) -> list[str]:
        if isinstance(value, _Moved):
            start, end = self._region(value.was)
            return BREAK.split(self._layout.text[start:end].rstrip("\r\n"))
        return [indent + line for line in _item_lines(value)]

    def _dash(self, index: int) -> int:
        # between two items stand only space and comments, in which there may be dashes too
        dash = self._layout.skip(self._item_end(index - 1) if index else self._layout.content_start(self._node))
        if self._layout.text[dash : dash + 1] != "-":
            raise self._home.refusal(self._node.start, "an item that is an alias cannot be found", "Write it out.")
        return dash

    def _item_end(self, index: int) -> int:
        item = self._node.items[index]
        if not self._node.start <= item.start <= self._node.end:
            raise self._home.refusal(self._node.start, "an item that is an alias cannot be found", "Write it out.")
        return self._layout.content_end(item)


class _Moved(NamedTuple):
    """An item that goes to another place as it is written."""

    was: int


def _item_lines(value: Any) -> list[str]:
    """An item of a block list, its lines without the list's own indent."""
    if isinstance(value, AnyMapping) and value:
        lines = to_yaml(value).rstrip("\n").split("\n")
        return ["- " + lines[0], *("  " + line for line in lines[1:])]
    return ["- " + scalar(value)]


def _is_null(node: Scalar) -> bool:
    return not node.style and node.value in ("", "null", "~", "Null", "NULL")


def _is_empty(node: Node) -> bool:
    if isinstance(node, Scalar):
        return _is_null(node)
    return not (node.items if isinstance(node, Sequence) else node.pairs)


def _fits_block(there: Node, value: Any) -> bool:
    """Whether a value takes lines of its own: what was nothing may, `[]` only for a list that an export writes so."""
    return isinstance(there, Scalar) or (isinstance(value, list) and any(isinstance(v, AnyMapping) for v in value))


def _tag_lies(node: Node) -> bool:
    """Whether the tag of a value may not be one of the next: `!!int 5` becomes `six`."""
    return isinstance(node, Scalar) and node.tag not in (None, _TEXT_TAG)


def _is_quoted(home: Edited, item: Node) -> bool:
    if isinstance(item, Scalar):
        return item.style == '"'
    return isinstance(item, Mapping) and EditedMapping(home, item)._quoted
