"""A document read as the Rust model reads it: the same text accepted, the same refused, each refusal with its place.

A refusal does not end the reading, so one run reports them all; without one, what the model would drop is noted.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any, NamedTuple

from bema.core import settings
from bema.core.errors import Refused
from bema.core.limits import Limits
from bema.packages.findings import Edit, Finding, Severity, Unreadable, at
from bema.packages.json_tree import parse_json
from bema.packages.nodes import Mapping, Node, Path, Scalar, Sequence, Source, anchor_of, content_start
from bema.packages.opackage import OPackage
from bema.packages.scalars import NULL_TAG, TAGS_OF, JsonScalars, Scalars, YamlScalars
from bema.packages.shapes import TypeShape, shape_of
from bema.packages.yaml_tree import parse_yaml


class Document(NamedTuple):
    """What became of a file. `package` is there unless `problems` says why not; `notes` are losses that are no errors."""

    source: Source
    package: OPackage | None
    root: Node | None = None
    problems: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()


def read(file: File, limits: Limits | None = None) -> OPackage:
    """The package in a YAML or JSON file; raises `Unreadable` with the first reason against it."""
    return _package(examine(file, limits))


def read_text(text: str, name: str = "", *, is_json: bool = False, limits: Limits | None = None) -> OPackage:
    return _package(examine_text(Source(text, name, is_json), limits))


def _package(document: Document) -> OPackage:
    if document.package is None:
        raise Unreadable(document.problems[0], document.source.name)
    return document.package


def examine(file: File, limits: Limits | None = None) -> Document:
    """Everything there is to say about a file's shape; raises only where the file cannot be opened."""
    limits = settings.current().limits if limits is None else limits
    try:
        with file.open("rb") as opened:
            # one byte more tells that the limit is passed, however large the file is
            data = opened.read(limits.package_document + 1)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}", code="not_found", fix="Name a file that can be read.") from error
    return examine_bytes(data, str(file), file.suffix.lower() == ".json", limits)


def examine_bytes(data: bytes, name: str, is_json: bool, limits: Limits | None = None) -> Document:
    """As `examine`, for what was read already; `data` need not go further than one byte beyond the limit."""
    limits = settings.current().limits if limits is None else limits
    if len(data) > limits.package_document:
        return _too_large(Source("", name, is_json, whole=False), limits)
    try:
        # YAML allows a byte order mark and JSON does not; written back, it is put there again
        return examine_text(Source(data.decode().removeprefix("\ufeff" * (not is_json)), name, is_json), limits)
    except UnicodeDecodeError as error:
        source = Source(data[: error.start].decode(), name, is_json, whole=False)
        return _unreadable(source, "encoding", len(source.text), f"not UTF-8: byte {data[error.start]:#04x}")


def examine_all(files: Iterable[File]) -> list[Document]:
    """As `examine`, for files that are looked at together: one that cannot be opened does not hide the others."""
    return [_examined(file) for file in files]


def _examined(file: File) -> Document:
    try:
        return examine(file)
    except Refused as error:
        source = Source("", str(file), whole=False)
        why = "no package document is below" if file.is_dir() else error.message.removeprefix(f"{file}: ")
        found = at(source, "no-file", Severity.ERROR, (), 0, why, error.fix or "")
        return Document(source, None, None, (found,))


def _unreadable(source: Source, rule: str, start: int, message: str) -> Document:
    return Document(source, None, None, (at(source, rule, Severity.ERROR, (), start, message),))


def _too_large(source: Source, limits: Limits) -> Document:
    return _unreadable(source, "too-large", 0, f"larger than {limits.package_document} bytes")


def examine_text(source: Source, limits: Limits | None = None) -> Document:
    limits = settings.current().limits if limits is None else limits
    if len(source.text) > limits.package_document:
        return _too_large(source, limits)
    with _no_collection():
        try:
            root = (parse_json if source.is_json else parse_yaml)(source, limits)
        except Unreadable as error:
            return Document(source, None, None, (error.finding,))
        reader = DocumentReader(source, JsonScalars() if source.is_json else YamlScalars())
        package = reader.read(shape_of(OPackage), root or Mapping(0, flow=False))
    problems = tuple(reader.problems)
    return Document(source, None if problems else package, root, problems, tuple(reader.notes))


@contextmanager
def _no_collection() -> Iterator[None]:
    """A large tree grows and nothing of it is garbage: collecting meanwhile would take longer than the reading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class DocumentReader:
    """Walks nodes with the shapes of the model; what it returns means something only while `problems` is empty."""

    def __init__(self, source: Source, scalars: Scalars) -> None:
        self.source = source
        self.scalars = scalars
        self.path: list[str | int] = []
        self.problems: list[Finding] = []
        self.notes: list[Finding] = []

    def refuse(self, rule: str, node: Node, message: str, fix: str = "", edits: tuple[Edit, ...] = ()) -> None:
        found = at(self.source, rule, Severity.ERROR, tuple(self.path), node.start, message, fix, edits)
        self.problems.append(found)

    def note(
        self, rule: str, node: Node, path: Path, message: str, fix: str = "", edits: tuple[Edit, ...] = ()
    ) -> None:
        self.notes.append(at(self.source, rule, Severity.WARNING, path, node.start, message, fix, edits))

    def mismatch(self, node: Node, shape: TypeShape) -> None:
        """The scalar or collection is not of the wanted kind: `invalid type`, in the model's words."""
        kind = "sequence" if isinstance(node, Sequence) else "map" if isinstance(node, Mapping) else None
        seen = kind or self.scalars.describe(node)  # type: ignore[arg-type]
        fix, edits = shape.mend(node, self.source)
        self.refuse("wrong-type", node, f"invalid type: {seen}, expected {shape.expected}", fix, edits)

    def read(self, shape: TypeShape, node: Node) -> Any:
        return _READERS[shape.kind](self, shape, node)

    def below(self, step: str | int, shape: TypeShape, node: Node) -> Any:
        self.path.append(step)
        value = _READERS[shape.kind](self, shape, node)
        self.path.pop()
        return value

    def _option(self, shape: TypeShape, node: Node) -> Any:
        if type(node) is Scalar and self.scalars.null(node):
            return None
        if type(node) is Scalar and not node.style and node.tag == NULL_TAG:  # an option asks the tag first
            message = f'invalid value: string "{node.value}", expected null'
            self.refuse("wrong-type", node, message, "Remove the tag.", self._without_tag(node))
        assert shape.inner is not None
        return _READERS[shape.inner.kind](self, shape.inner, node)

    def _tag(self, node: Scalar, shape: TypeShape) -> None:
        """A tag of another type than the field's: the model reads over it, where other readers go by it."""
        if node.tag in TAGS_OF[shape.kind] or node.style:
            return
        said = str(node.tag).rpartition(":")[2]
        message = f"the tag !!{said} is ignored: the model reads {_KINDS[shape.kind]} here"
        self.note("tag-ignored", node, tuple(self.path), message, "Remove the tag.", self._without_tag(node))

    def _without_tag(self, node: Scalar) -> tuple[Edit, ...]:
        """Without its tag an empty text or `null` would be null."""
        start = content_start(self.source.text, node)
        bare = Scalar(node.value, node.style, start, node.end)
        if self.scalars.null(bare):
            return ()
        return (Edit(node.start, start, anchor_of(self.source.text, node)),)

    def _text(self, shape: TypeShape, node: Node) -> Any:
        value = self.scalars.text(node) if type(node) is Scalar else None
        if value is None:
            self.mismatch(node, shape)
        elif node.tag is not None:  # type: ignore[union-attr]
            self._tag(node, shape)  # type: ignore[arg-type]
        return value

    def _boolean(self, shape: TypeShape, node: Node) -> Any:
        value = self.scalars.boolean(node) if type(node) is Scalar else None
        if value is None:
            self.mismatch(node, shape)
        elif node.tag is not None:  # type: ignore[union-attr]
            self._tag(node, shape)  # type: ignore[arg-type]
        return value

    def _integer(self, shape: TypeShape, node: Node) -> Any:
        value = self.scalars.integer(node) if type(node) is Scalar else None
        if value is None:
            self.mismatch(node, shape)
        elif node.tag is not None:  # type: ignore[union-attr]
            self._tag(node, shape)  # type: ignore[arg-type]
        elif value > shape.most:
            self.refuse("out-of-range", node, f"invalid value: integer `{value}`, expected {shape.expected}")
        return value

    def _number(self, shape: TypeShape, node: Node) -> Any:
        value = self.scalars.number(node) if type(node) is Scalar else None
        if value is None:
            self.mismatch(node, shape)
        elif node.tag is not None:  # type: ignore[union-attr]
            self._tag(node, shape)  # type: ignore[arg-type]
        return value

    def _instant(self, shape: TypeShape, node: Node) -> Any:
        text = self._text(shape, node)
        value = shape.convert(text) if text is not None else None
        if text is not None and value is None:
            self.refuse(
                "bad-instant", node, f"not an RFC 3339 instant: {text!r}", "Write it like 2026-03-01T10:00:00Z."
            )
        return value

    def _variant(self, shape: TypeShape, node: Node) -> Any:
        text = self.scalars.text(node) if type(node) is Scalar else None
        if text is None:
            self.mismatch(node, shape)
            return None
        if node.tag is not None:  # type: ignore[union-attr]
            self._tag(node, shape)  # type: ignore[arg-type]
        value = shape.variants.get(text)
        if value is None:
            wanted = ", ".join(f"`{name}`" for name in shape.variants)
            fix, edits = shape.mend(node, self.source)
            self.refuse("unknown-variant", node, f"unknown variant `{text}`, expected one of {wanted}", fix, edits)
        return value

    def _list(self, shape: TypeShape, node: Node) -> Any:
        assert shape.inner is not None
        # a blank (`classes:`) is an empty collection, a null (`classes: null`) is not: so serde_yaml, and JSON has no blank
        if type(node) is not Sequence:
            if not (type(node) is Scalar and self.scalars.blank(node)):
                self.mismatch(node, shape)
            return []
        return [self.below(index, shape.inner, item) for index, item in enumerate(node.items)]

    def _map(self, shape: TypeShape, node: Node) -> Any:
        assert shape.inner is not None
        if type(node) is not Mapping:
            if not (type(node) is Scalar and self.scalars.blank(node)):
                self.mismatch(node, shape)
            return {}
        values: dict[str, Any] = {}
        for key_node, value_node in node.pairs:
            key = self._key(key_node)
            if key is None:
                continue
            if key in values:
                # serde's maps keep the last and say nothing, its structs refuse: see _fields
                where = (*self.path, key)
                self.note("duplicate-config-key", key_node, where, f"`{key}` is written twice; the last one counts")
            values[key] = self.below(key, shape.inner, value_node)
        return values

    def _key(self, node: Node) -> str | None:
        key = self.scalars.text(node) if type(node) is Scalar else None
        if key is None:
            self.refuse("wrong-type", node, "invalid type: a key must be a string")
        return key

    def _struct(self, shape: TypeShape, node: Node) -> Any:
        if type(node) is not Mapping:
            if not (type(node) is Scalar and self.scalars.blank(node)):
                self.mismatch(node, shape)
                return None
            pairs = []
        else:
            pairs = node.pairs
        values = self._fields(shape, pairs)
        for name in shape.required:
            if name not in values:
                written = shape.written_as(name, (key.value for key, _ in pairs if isinstance(key, Scalar)))
                fix = f"Write `{name}` for `{written}`." if written else f"Add `{name}`."
                self.refuse("missing-field", node, f"missing field `{name}`", fix)
        # after a refusal fields may be absent, which no constructor takes
        return None if self.problems else shape.build(**values)

    def _fields(self, shape: TypeShape, pairs: list[tuple[Node, Node]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        siblings: set[str] = set()  # made once, and only where a field is unknown
        for key_node, value_node in pairs:
            key = self._key(key_node)
            if key is None:
                continue
            field = shape.fields.get(key)
            if field is None:  # no struct of the model has deny_unknown_fields: it is read over, and lost
                siblings = siblings or {k.value for k, _ in pairs if isinstance(k, Scalar)}
                rule, message, fix, edits = shape.dropped(key, key_node, siblings, self.source)
                self.note(rule, key_node, (*self.path, key), message, fix, edits)
            elif key in values:
                self.path.append(key)
                self.refuse("duplicate-field", key_node, f"duplicate field `{key}`", "Keep one.")
                self.path.pop()
            else:
                values[key] = self.below(key, field, value_node)
        return values


_KINDS = {
    "text": "text",
    "instant": "a time",
    "variant": "a word",
    "boolean": "a boolean",
    "integer": "a whole number",
    "number": "a number",
}
_READERS: dict[str, Callable[[DocumentReader, TypeShape, Node], Any]] = {
    "option": DocumentReader._option,
    "text": DocumentReader._text,
    "boolean": DocumentReader._boolean,
    "integer": DocumentReader._integer,
    "number": DocumentReader._number,
    "instant": DocumentReader._instant,
    "variant": DocumentReader._variant,
    "list": DocumentReader._list,
    "map": DocumentReader._map,
    "struct": DocumentReader._struct,
}
