"""JSON text to nodes, as strict as serde_json: one value, no comments, no NaN, no lone surrogates."""

from __future__ import annotations

import re
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]

from bema.core.limits import Limits
from bema.packages.findings import Severity, Unreadable, at
from bema.packages.nodes import Mapping, Node, Scalar, Sequence, Source

_SPACE = re.compile(r"[ \t\n\r]*")
# JSON's numbers only: float() takes `1_0`, `inf` and digits of other scripts as well
_WORD = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null", re.ASCII)


def parse_json(source: Source, limits: Limits) -> Node:
    reader = _Reader(source, limits)
    if source.text.startswith("\ufeff"):  # RFC 8259 lets a reader ignore it; the model's does not
        raise reader.stop(0, "a byte order mark is not allowed before JSON")
    node, end = reader.value(reader.skip(0), 0)
    end = reader.skip(end)
    if end < len(source.text):
        raise reader.stop(end, "trailing characters")
    return node


class _Reader:
    def __init__(self, source: Source, limits: Limits) -> None:
        self.source = source
        self.text = source.text
        self.nodes = 0
        self.most_nodes = limits.package_nodes
        self.most_depth = limits.package_depth

    def stop(self, start: int, message: str, rule: str = "json-syntax") -> Unreadable:
        return Unreadable(at(self.source, rule, Severity.ERROR, (), start, message), self.source.name)

    def skip(self, start: int) -> int:
        found = _SPACE.match(self.text, start)
        return found.end() if found else start

    def value(self, start: int, depth: int) -> tuple[Node, int]:
        self.nodes += 1
        if self.nodes > self.most_nodes:
            raise self.stop(start, f"more than {self.most_nodes} values", "too-many-nodes")
        mark = self.text[start : start + 1]
        if mark == '"':
            return self.string(start)
        if mark in ("{", "["):
            if depth >= self.most_depth:
                raise self.stop(start, f"more than {self.most_depth} levels deep", "too-deep")
            return self.mapping(start, depth + 1) if mark == "{" else self.sequence(start, depth + 1)
        word = _WORD.match(self.text, start)
        if not word:
            raise self.stop(start, "expected value" if mark else "the document ends where a value should be")
        return Scalar(word.group(), "", start, word.end()), word.end()

    def string(self, start: int) -> tuple[Scalar, int]:
        try:
            value, end = scanstring(self.text, start + 1, True)
            if not value.isascii():
                value.encode()  # `\\ud800` alone: Python's decoder makes a text of it that no UTF-8 file can hold
        except JSONDecodeError as error:
            raise self.stop(error.pos, error.msg) from error
        except UnicodeEncodeError as error:
            raise self.stop(start, "lone surrogate in a string") from error
        return Scalar(value, '"', start, end), end

    def mapping(self, start: int, depth: int) -> tuple[Mapping, int]:
        node = Mapping(start, flow=True)
        position = self.skip(start + 1)
        if self.text[position : position + 1] != "}":
            while True:
                if self.text[position : position + 1] != '"':
                    raise self.stop(position, "key must be a string")
                # keys count against the limit of values: in memory they weigh as much
                key, position = self.string(position)
                self.nodes += 1
                position = self.skip(position)
                if self.text[position : position + 1] != ":":
                    raise self.stop(position, "expected `:`")
                value, position = self.value(self.skip(position + 1), depth)
                node.pairs.append((key, value))
                position, more = self.separator(position, "}")
                if not more:
                    break
        node.end = position + 1
        return node, node.end

    def sequence(self, start: int, depth: int) -> tuple[Sequence, int]:
        node = Sequence(start)
        position = self.skip(start + 1)
        if self.text[position : position + 1] != "]":
            while True:
                value, position = self.value(position, depth)
                node.items.append(value)
                position, more = self.separator(position, "]")
                if not more:
                    break
        node.end = position + 1
        return node, node.end

    def separator(self, position: int, closing: str) -> tuple[int, bool]:
        """After a member: where the next one begins, or where the collection closes."""
        position = self.skip(position)
        mark = self.text[position : position + 1]
        if mark == ",":
            return self.skip(position + 1), True
        if mark != closing:
            raise self.stop(position, f"expected `,` or `{closing}`")
        return position, False
