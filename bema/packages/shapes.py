"""Shapes: the model's types as the reader needs them: what each place expects, and how common mistakes are mended."""

from __future__ import annotations

import enum
import re
import types
from collections.abc import Callable, Iterable
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from bema.packages.findings import Edit
from bema.packages.layout import Layout
from bema.packages.nodes import Node, Scalar, Sequence, Source, anchor_of, content_start
from bema.packages.opackage import Instant, Part
from bema.packages.scalars import to_utc

_YES = frozenset(("yes", "on", "true"))
_NO = frozenset(("no", "off", "false"))
# names from other platforms and earlier dialects that mean exactly one variant
_SYNONYMS = {"TASK": "CUSTOM"}
# the fields that documents written before the model called otherwise: the new name, where nothing bears it yet
_RENAMED: dict[str, dict[str, str]] = {
    "FunctionBinding": {"immutable": "stateless"},
    "OClass": {"name": "key"},
    "OFunction": {"name": "key"},
    "OClassDeployment": {"name": "key"},
}
# field -> what became of it; these were part of the document once
_LEGACY: dict[str, dict[str, str]] = {
    "OPackage": {"disabled": "left the model in September 2025"},
    "OClass": {"disabled": "left the model in September 2025", "immutable": "left the model in August 2025"},
    "OFunction": {"disabled": "left the model in September 2025", "immutable": "left the model in August 2025"},
    "KeySpecification": {"nullable": "left the model in September 2025"},
    "FunctionBinding": {"immutable": "is called `stateless` now"},
    "ProvisionConfig": {"knative": "left the model in August 2025"},
    "FunctionDeploymentSpec": {"container_image": "moved into provision_config"},
}


Dropped = tuple[str, str, str, tuple[Edit, ...]]
NOTHING: tuple[str, tuple[Edit, ...]] = ("", ())


class TypeShape:
    """One place of the document: its kind, what the model says it expects, and what is inside."""

    __slots__ = ("build", "expected", "fields", "inner", "kind", "most", "name", "required", "variants")

    def __init__(self, kind: str, expected: str, inner: TypeShape | None = None) -> None:
        self.kind = kind
        self.expected = expected
        self.inner = inner
        self.most = 0
        self.variants: dict[str, Any] = {}
        self.fields: dict[str, TypeShape] = {}
        self.required: tuple[str, ...] = ()
        self.build: Callable[..., Any] = dict
        self.name = ""

    def convert(self, text: str) -> str | None:
        return to_utc(text)

    def mend(self, node: Node, source: Source) -> tuple[str, tuple[Edit, ...]]:
        """How a value of the wrong kind becomes one of this kind, where only one thing can have been meant."""
        if self.name == "KeySpecification" and isinstance(node, Sequence):
            return _mend_key_spec(node, source)
        if not isinstance(node, Scalar) or node.style in ("|", ">"):
            return NOTHING
        if self.kind == "boolean":
            word = "true" if node.value.lower() in _YES else "false" if node.value.lower() in _NO else ""
            return _mend_word(node, word, source)
        # ten digits hold every u32; int() is not given more
        if self.kind == "integer" and node.style and re.fullmatch("0|[1-9][0-9]{0,9}", node.value):
            return _mend_word(node, node.value if int(node.value) <= self.most else "", source)
        if self.kind == "variant":
            return _mend_variant(node, self.variants, source)
        # null may also mean that the field is to go: two answers are none
        if self.kind == "text" and source.is_json and node.value != "null":
            return f'Write "{node.value}".', (Edit(node.start, node.end, f'"{node.value}"'),)
        return NOTHING

    def dropped(self, key: str, node: Node, siblings: set[str], source: Source) -> Dropped:
        """What the model does with a key it does not know: nothing. Rule, message, fix and edits."""
        if key == "<<":  # serde_yaml expands no merge keys: it sees a field of that name, which no struct has
            return "merge-key", "the model drops merge keys and all they would bring", "Write the fields out.", ()
        story = _LEGACY.get(self.name, {}).get(key)
        meant = _RENAMED.get(self.name, {}).get(key)
        renamed = meant is not None and meant not in siblings
        if story is None:
            message = f"the model has no field `{key}` here and drops it"
            if renamed:
                return "dropped-key", message, f"Write `{meant}`.", _rename(node, str(meant), source)
            return "dropped-key", message, _nearest(key, self.fields, siblings), ()
        message = f"`{key}` {story}; the model drops it"
        # an exporter wrote `immutable` for `stateless`, and the model, which knows no `immutable`, made the method stateful
        if renamed:
            return "legacy-key", message, f"Write `{meant}`.", _rename(node, str(meant), source)
        return "legacy-key", message, f"Remove `{key}`.", ()

    def written_as(self, name: str, keys: Iterable[str]) -> str | None:
        """The key under which a field that is missing was meant, if any."""
        renamed = _RENAMED.get(self.name, {})
        return next(
            (k for k in keys if k not in self.fields and (renamed.get(k) == name or _bare(k) == _bare(name))), None
        )


def _rename(node: Node, name: str, source: Source) -> tuple[Edit, ...]:
    quote = node.style if isinstance(node, Scalar) else ""
    return (Edit(content_start(source.text, node), node.end, f"{quote}{name}{quote}"),)


def _written(node: Node, text: str, source: Source) -> tuple[Edit, ...]:
    """The text in place of a value and its tag; its anchor stays, because aliases name it."""
    end = Layout(source).content_end(node)
    return (Edit(node.start, end, anchor_of(source.text, node) + text),)


def _mend_word(node: Scalar, word: str, source: Source) -> tuple[str, tuple[Edit, ...]]:
    return (f"Write {word}.", _written(node, word, source)) if word else NOTHING


def _mend_variant(node: Scalar, variants: dict[str, Any], source: Source) -> tuple[str, tuple[Edit, ...]]:
    wanted = re.sub(r"(?<=[a-z])(?=[A-Z])|[- ]", "_", node.value.strip()).upper()
    wanted = _SYNONYMS.get(wanted, wanted)
    if wanted not in variants:
        return NOTHING
    return f"Write {wanted}.", _written(node, f"{node.style}{wanted}{node.style}", source)


def _mend_key_spec(node: Sequence, source: Source) -> tuple[str, tuple[Edit, ...]]:
    """The decorator's tuple (name, type, nullable) written into the document."""
    parts = node.items[:2]
    if len(parts) < 2 or len(node.items) > 3 or not all(isinstance(part, Scalar) for part in node.items):
        return NOTHING
    if not all(node.start <= part.start < node.end for part in parts):
        return NOTHING  # what an alias stands for is written elsewhere
    name, kind = (source.text[part.start : part.end] for part in parts)
    pair = f'{{"name": {name}, "key_type": {kind}}}' if source.is_json else f"{{name: {name}, key_type: {kind}}}"
    return f"Write {pair}.", _written(node, pair, source)


def _nearest(key: str, fields: dict[str, TypeShape], siblings: set[str]) -> str:
    plain = _bare(key)
    found = next((name for name in fields if _bare(name) == plain and name not in siblings), None)
    return f"Write `{found}`." if found else f"Remove `{key}`."


def _bare(key: str) -> str:
    # `maxScale`, `max-scale` and `MAX_SCALE` are one name in three conventions
    return key.replace("_", "").replace("-", "").lower()


@cache
def shape_of(declared: Any) -> TypeShape:
    """The shape of an annotation of the model; each is made once."""
    origin, arguments = get_origin(declared), get_args(declared)
    if declared is Instant:
        return TypeShape("instant", "an RFC 3339 formatted date and time string")
    if origin is Annotated:
        return _whole(arguments) if arguments[0] is int else shape_of(arguments[0])
    if origin in (Union, types.UnionType):
        return TypeShape("option", "", shape_of(next(a for a in arguments if a is not type(None))))
    if origin is list:
        return TypeShape("list", "a sequence", shape_of(arguments[0]))
    if origin is dict:
        return TypeShape("map", "a map", shape_of(arguments[1]))
    if declared in _PLAIN:
        return TypeShape(*_PLAIN[declared])
    if issubclass(declared, enum.Enum):
        return _variants(declared)
    return _struct(declared)


_PLAIN: dict[Any, tuple[str, str]] = {
    str: ("text", "a string"),
    bool: ("boolean", "a boolean"),
    float: ("number", "f64"),
}


def _whole(arguments: tuple[Any, ...]) -> TypeShape:
    meta = arguments[1]
    # 2**64 - 1 stands beside, because msgspec cannot compare what is beyond 63 bits
    most = (meta.extra_json_schema or {}).get("maximum", meta.le)
    shape = TypeShape("integer", f"u{most.bit_length()}")
    shape.most = most
    return shape


def _variants(declared: type[enum.Enum]) -> TypeShape:
    shape = TypeShape("variant", f"variant of enum `{declared.__name__}`")
    shape.variants = {member.value: member for member in declared}
    return shape


def _struct(declared: type[Part]) -> TypeShape:
    shape = TypeShape("struct", f"struct {declared.__name__}")
    shape.name = declared.__name__
    shape.build = declared
    hints = get_type_hints(declared, include_extras=True)
    shape.fields = {name: shape_of(hints[name]) for name in declared.__struct_fields__}
    shape.required = tuple(field.name for field in msgspec.structs.fields(declared) if field.required)
    return shape
