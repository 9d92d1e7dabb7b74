"""Layout: where the values, lines and comments of a document stand in its text.

Law: a comment belongs to the item below it, unless it is indented deeper than that item: then it is the last word of the
item above. The lines of an item are its own and those of such comments; they go and move together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bema.packages.nodes import BREAK, Mapping, Node, Scalar, Sequence, Source, content_start

# What follows a bracket, a comma or a quote may begin without a space; within scalars nobody looks for it.
COMMENT = re.compile(r"#[^\r\n]*")
_BETWEEN = re.compile(r"(?:\s|#[^\r\n]*)*")
_REST_OF_LINE = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?:\r\n|\n|\r|$)")
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n|\n|\r))*([ \t]*)(#)?")


class Layout:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text

    def line_start(self, offset: int) -> int:
        return max(self.text.rfind("\n", 0, offset), self.text.rfind("\r", 0, offset)) + 1

    def next_line(self, offset: int) -> int:
        found = BREAK.search(self.text, offset)
        return found.end() if found else len(self.text)

    def column(self, offset: int) -> int:
        return offset - self.line_start(offset)

    def lead(self, offset: int) -> str:
        """What stands before an offset on its line."""
        return self.text[self.line_start(offset) : offset]

    def begins_line(self, offset: int) -> bool:
        return not self.lead(offset).strip(" \t")

    def ends_line(self, offset: int) -> bool:
        """Whether nothing but a comment is behind an offset on its line."""
        return _REST_OF_LINE.match(self.text, offset) is not None

    def lines(self, start: int, end: int, column: int) -> tuple[int, int]:
        """The lines from `start` to `end` with the comments that belong to an item which begins in that column."""
        return self._with_comments_above(self.line_start(start), column), self.with_comments_below(end, column)

    def _with_comments_above(self, line: int, column: int) -> int:
        while line > 0:
            above = self.line_start(line - (2 if self.text[line - 2 : line] == "\r\n" else 1))
            # deeper than the item it is the last word of the one above, as a field that was
            # commented out
            comment = self.text[above:line].lstrip(" \t")
            if not comment.startswith("#") or line - above - len(comment) > column:
                return line
            line = above
        return line

    def with_comments_below(self, offset: int, column: int) -> int:
        """Behind the line of an offset and the deeper comments below it."""
        line = self.next_line(offset)
        while (found := _BLANK_LINES.match(self.text, line)) and found.group(2) and len(found.group(1)) > column:
            line = self.next_line(found.end())
        return line

    def skip(self, offset: int) -> int:
        """The next offset at which something else than space or a comment stands."""
        found = _BETWEEN.match(self.text, offset)
        return found.end() if found else offset

    def content_start(self, node: Node) -> int:
        return content_start(self.text, node)

    def content_end(self, node: Node) -> int:
        """Where a value ends, without the comments and empty lines that a parser adds to it."""
        if isinstance(node, Scalar):
            text = self.text[node.start : node.end]
            return node.start + len(text.rstrip()) if node.style in ("|", ">") else node.end
        if self.is_flow(node):
            return node.end
        parts = node.items if isinstance(node, Sequence) else [part for pair in node.pairs for part in pair]
        # what an alias stands for is written elsewhere
        ends = [self.content_end(part) for part in parts if node.start <= part.start <= node.end]
        return max([node.start, *ends])

    def is_flow(self, node: Node) -> bool:
        if isinstance(node, Scalar) or self.text[node.end - 1 : node.end] not in ("]", "}"):
            return False
        # a block may end in a bracket too: that of its last value
        return self.text[self.content_start(node)] in ("[", "{")

    def is_tall(self, node: Node) -> bool:
        """Whether each item of a `[...]` or `{...}` begins a line of its own."""
        parts = node.items if isinstance(node, Sequence) else [k for k, _ in node.pairs] if self.is_flow(node) else []  # type: ignore[union-attr]
        return self.is_flow(node) and bool(parts) and all(self.begins_line(part.start) for part in parts)


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


def has_alias(root: Node) -> bool:
    """Whether one part stands in two places."""
    seen: set[int] = set()
    # a tree leads to each of its parts once, so that to come again means an alias
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            return True
        seen.add(id(node))
        if not isinstance(node, Scalar):
            waiting += node.items if isinstance(node, Sequence) else [part for pair in node.pairs for part in pair]
    return False


def comments(text: str, root: Node) -> list[tuple[int, str]]:
    """(offset, comment) of every comment, in order: what begins with `#` and is in no scalar."""
    scalars = (node for node in walk(root) if isinstance(node, Scalar) and node.end > node.start)
    spans = sorted((content_start(text, node), node.end) for node in scalars)
    found: list[tuple[int, str]] = []
    at = index = 0
    while (comment := COMMENT.search(text, at)) is not None:
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
    head = block_head(text, start)
    return head is not None and head.end() == at


def block_head(text: str, start: int) -> re.Match[str] | None:
    """The mark of a block scalar and the space up to the comment behind it."""
    return re.compile(r"[|>][-+0-9]*[ \t]+(?=#)").match(text, start)
