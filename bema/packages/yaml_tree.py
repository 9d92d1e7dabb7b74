"""YAML text to nodes, composed here from the events of PyYAML's parser.

Law: depth, size and aliases are bounded while the document is read. PyYAML's own composer cannot do that: the one in C
recurses, and a few thousand brackets overflow its stack.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from bema.core.errors import Refused
from bema.core.limits import Limits
from bema.packages.findings import Edit, Finding, Severity, Unreadable, at
from bema.packages.nodes import Mapping, Node, Scalar, Sequence, Source

# what YAML does not call printable, at which a reader gives up; the complement would take 20 times as long to compile
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_MARKER_LINE = re.compile(r"(---|\.\.\.)?[ \t]*(#[^\r\n]*)?(?:\r\n|\n|\r|\Z)")
_CORE = "tag:yaml.org,2002:"
# A tag names a type to construct. YAML's own are harmless; any other is a request to run something, or means nothing.
_CORE_TAGS = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))


def yaml_module(needed_for: str = "YAML documents") -> Any:
    try:
        return importlib.import_module("yaml")
    except ModuleNotFoundError as missing:
        raise Refused(
            f"{needed_for} need PyYAML, which is not installed",
            code="missing_extra",
            fix="Install the extra: `pip install 'bema[packages]'`. JSON documents need nothing.",
            extra="packages",
        ) from missing


def parse_yaml(source: Source, limits: Limits) -> Node | None:
    """The root node of the only document; None where there is none."""
    # before the parser: its own error has no mark, and the form in C words it otherwise
    bad = _UNPRINTABLE.search(source.text)
    if bad:
        raise _stop(source, "yaml-syntax", bad.start(), f"control characters are not allowed: {bad.group()!r}")
    yaml = yaml_module()
    parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(source.text)
    try:
        return _Composer(source, yaml.events, limits).compose(parser)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f", {error.context}" if error.context else ""
        start = mark.index if mark else 0
        tab = _tab(source.text, start)
        raise _stop(source, "yaml-syntax", start, f"{tab[0] or error.problem}{context}", *tab[1:]) from error
    finally:
        parser.dispose()


def _tab(text: str, start: int) -> tuple[str, str, tuple[Edit, ...]]:
    """The parsers say "character that cannot start any token" of a tab where only spaces may be."""
    if text[start : start + 1] != "\t":
        return "", "", ()
    end = start + len(text[start:]) - len(text[start:].lstrip(" \t"))
    behind = text[end : end + 1]
    # what is behind a line needs no tab; before a word only its author knows how far it is to be moved
    edits = (Edit(start, end, " " if behind == "#" else ""),) if behind in ("#", "\r", "\n", "") else ()
    return "a tab stands where only spaces may", "Write spaces.", edits


def _stop(
    source: Source, rule: str, start: int, message: str, fix: str = "", edits: tuple[Edit, ...] = ()
) -> Unreadable:
    found: Finding = at(source, rule, Severity.ERROR, (), start, message, fix, edits)
    return Unreadable(found, source.name)


def _markers(text: str, start: int) -> list[tuple[int, int]] | None:
    """The `---` and `...` from here on with their line ends, where nothing but comments stands between; else None."""
    found, at = [], start
    while at < len(text):
        line = _MARKER_LINE.match(text, at)
        if line is None:
            return None
        if line.group(1):
            # behind a marker on its line a comment may stand, and stays
            found.append((at, line.end() if not line.group(2) else line.start(2)))
        at = line.end()
    return found


class _Open:
    """A collection that is not closed yet: `key` waits for its value, `size` counts nodes with aliases written out."""

    __slots__ = ("anchor", "key", "node", "size")

    def __init__(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None
        self.size = 1


class _Composer:
    def __init__(self, source: Source, events: Any, limits: Limits) -> None:
        self.source = source
        self.events = events
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int | None]] = {}  # with the size; None while it is still open
        self.root: Node | None = None
        self.documents = 0
        self.nodes = 0
        self.aliased = False
        self.most_nodes = limits.package_nodes
        self.most_depth = limits.package_depth

    def compose(self, parser: Any) -> Node | None:
        scalar, alias = self.events.ScalarEvent, self.events.AliasEvent
        starts = (self.events.SequenceStartEvent, self.events.MappingStartEvent)
        ends = (self.events.SequenceEndEvent, self.events.MappingEndEvent)
        get_event = parser.get_event
        while True:
            event = get_event()
            kind = type(event)
            if kind is scalar:
                self._scalar(event)
            elif kind in starts:
                self._open(event, kind is starts[1])
            elif kind in ends:
                self._close(event)
            elif kind is alias:
                self._alias(event)
            elif kind is self.events.DocumentStartEvent:
                self._document(event, get_event)
            elif kind is self.events.StreamEndEvent:
                return self.root

    def _document(self, event: Any, get_event: Any) -> None:
        self.documents += 1
        if self.documents == 1:
            return
        start = event.start_mark.index
        # the platform's own tool wrote a closing `---` and its command line then refused the file: worth a fix of its own
        markers = _markers(self.source.text, start)
        if markers is None:
            raise _stop(
                self.source,
                "several-documents",
                start,
                "more than one document in one file",
                "Write one document per file.",
            )
        edits = tuple(Edit(here, end, "") for here, end in markers)
        raise _stop(
            self.source, "trailing-marker", start, "a trailing `---` opens a second document", "Remove it.", edits
        )

    def _count(self, event: Any, tag: str | None) -> None:
        self.nodes += 1
        if self.nodes > self.most_nodes:
            self._too_many(event)
        if tag is not None and tag not in _CORE_TAGS:
            raise _stop(
                self.source, "yaml-tag", event.start_mark.index, f"the tag {tag!r} is not allowed", "Remove the tag."
            )

    def _too_many(self, event: Any) -> None:
        raise _stop(
            self.source,
            "too-many-nodes",
            event.start_mark.index,
            f"more than {self.most_nodes} values, aliases written out",
            "Split the package.",
        )

    def _scalar(self, event: Any) -> None:
        tag = event.tag
        self._count(event, tag)
        node = Scalar(event.value, event.style or "", event.start_mark.index, event.end_mark.index, tag)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1)
        self._place(node, 1)

    def _open(self, event: Any, mapping: bool) -> None:
        self._count(event, event.tag)
        start = event.start_mark.index
        if len(self.stack) >= self.most_depth:
            raise _stop(self.source, "too-deep", start, f"more than {self.most_depth} levels deep")
        node: Sequence | Mapping = Mapping(start, bool(event.flow_style)) if mapping else Sequence(start)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, None)
        self.stack.append(_Open(node, event.anchor))

    def _close(self, event: Any) -> None:
        closed = self.stack.pop()
        closed.node.end = event.end_mark.index
        if closed.anchor is not None:
            self.anchors[closed.anchor] = (closed.node, closed.size)
        self._place(closed.node, closed.size)
        if self.aliased:
            self._weigh(event)

    def _weigh(self, event: Any) -> None:
        """What counts is what a reader walks, so a collection weighs what its aliases stand for, at every level."""
        if self.stack and self.stack[-1].size > self.most_nodes:
            self._too_many(event)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            raise _stop(self.source, "yaml-syntax", event.start_mark.index, f"unknown anchor {event.anchor!r}")
        node, size = self.anchors[event.anchor]
        if size is None:  # the model is a tree; a reader would walk such a circle for ever
            raise _stop(self.source, "alias-cycle", event.start_mark.index, f"*{event.anchor} contains itself")
        self._place(node, size)
        self.aliased = True
        self._weigh(event)

    def _place(self, node: Node, size: int) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        top.size += size
        if isinstance(top.node, Sequence):
            top.node.items.append(node)
        elif top.key is None:
            top.key = node
        else:
            top.node.pairs.append((top.key, node))
            top.key = None
