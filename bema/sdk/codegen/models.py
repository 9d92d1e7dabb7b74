"""Models of generated modules: annotations as text, and the models that they name as structs of the same fields.

Laws: an annotation that cannot be written is `Any`, and a default that cannot be written is left to the callee. A model is
written once, after the models that it uses; a second model of the same name gets a number.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import inspect
import math
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

MISSING: Any = typing.Any
_BARE = {
    list: "list[{0}]",
    set: "set[{0}]",
    frozenset: "frozenset[{0}]",
    dict: "dict[{0}, {0}]",
    tuple: "tuple[{0}, ...]",
}
_PLAIN = (bool, int, float, str, bytes, bytearray, memoryview)
_WRAPPERS = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.ClassVar)
_RESERVED = {"abc", "msgspec", "service", "endpoint", "enum", "typing", "Any", "Literal"}


class Field(NamedTuple):
    """One field of a model: `wire` is its name where it travels, `default` an expression, None where it is required."""

    name: str
    wire: str
    type: Any
    default: str | None


def literal(value: Any) -> str | None:
    """An expression of the value, or None where there is no short one."""
    # exact types: the repr of a subclass, such as an IntEnum's, is no expression
    if type(value) is str:
        return msgspec.json.encode(value).decode()  # JSON's strings are Python's
    if value is None or type(value) in (bool, int, bytes):
        return repr(value)
    return repr(value) if type(value) is float and math.isfinite(value) else None


class Names:
    """The names one generated module uses: its models in order, its imports, and how each annotation is written."""

    def __init__(self, *, stub: bool, shadowed: set[str], taken: set[str]) -> None:
        self.stub = stub
        self.models: list[str] = []
        self.modules: set[str] = set()
        self.imported: dict[str, set[str]] = {"typing": set(), "collections.abc": set()}
        self._shadowed = shadowed  # by methods: the builtin is meant
        self._taken = taken | _RESERVED | set(dir(builtins))
        self._known: dict[Any, str] = {}

    def of(self, kind: Any) -> str:
        """An annotation as text."""
        kind = _unwrapped(kind)
        if kind is Any:
            return self._any()
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is None or kind is type(None):
            return "None"
        if origin in (typing.Union, types.UnionType):
            return " | ".join(dict.fromkeys(map(self.of, arguments)))
        if origin is typing.Literal:
            return f"{self._typing('Literal')}[{', '.join(map(_value, arguments))}]"
        if origin is not None and _is_model(origin):
            return self._model(origin)
        if origin is not None:
            inner = ", ".join("..." if a is ... else self.of(a) for a in arguments) or "()"
            written = self._class(origin)
            return written if written == "Any" else f"{written}[{inner}]"
        if isinstance(kind, type):
            return self._model(kind) if _is_model(kind) else self._bare(kind)
        return self._any()

    def of_abc(self, name: str) -> str:
        self.imported["collections.abc"].add(name)
        return name

    def _any(self) -> str:
        return self._typing("Any")

    def _typing(self, name: str) -> str:
        self.imported["typing"].add(name)
        return name

    def _bare(self, kind: type) -> str:
        if kind in _BARE:
            text = _BARE[kind].format(self._any())
            return f"{self._builtin(kind.__name__)}{text[len(kind.__name__) :]}"
        return self._class(kind)

    def _builtin(self, name: str) -> str:
        if name not in self._shadowed:
            return name
        self.modules.add("builtins")
        return f"builtins.{name}"

    def _class(self, kind: Any) -> str:
        """A class that both sides have: a builtin, one of the standard library, one of msgspec."""
        # Python 3.13 says `pathlib._local` of Path; the public module is before the underscore
        home = kind.__module__.partition("._")[0]
        if kind in _PLAIN or kind in _BARE:
            return self._builtin(kind.__name__)
        if home == "collections.abc":
            return self.of_abc(kind.__name__)
        if home != "builtins" and home.partition(".")[0] in {"msgspec", *sys.stdlib_module_names}:
            self.modules.add(home)
            return f"{home}.{kind.__qualname__}"
        return self._any()

    # models

    def _model(self, kind: Any) -> str:
        if kind not in self._known:
            # known before it is written, because a model may hold itself
            self._known[kind] = name = self._free(kind.__name__)
            # methods hide builtins within the class of the service only, and models stand outside
            methods, self._shadowed = self._shadowed, set()
            self.models.append(self._written(kind, name))
            self._shadowed = methods
        return self._known[kind]

    def _free(self, name: str) -> str:
        free, number = name, 2
        while free in self._taken:
            free, number = f"{name}{number}", number + 1
        self._taken.add(free)
        return free

    def _written(self, kind: Any, name: str) -> str:
        if issubclass(kind, enum.Enum):
            self.modules.add("enum")
            base = next(b.__name__ for b in kind.__mro__ if b.__module__ == "enum")
            return "\n".join((f"class {name}(enum.{base}):", *(f"    {m.name} = {_value(m.value)}" for m in kind)))
        if typing.is_typeddict(kind):
            return "\n".join((f"class {name}({self._typing('TypedDict')}):", *self._keys(kind)))
        if issubclass(kind, tuple):
            lines = [self._line(field) for field in _fields(kind, self)]
            return "\n".join((f"class {name}({self._typing('NamedTuple')}):", *(lines or ["    pass"])))
        self.modules.add("msgspec")
        fields = list(_fields(kind, self))
        options = _options(kind, fields)
        lines = [self._line(field) for field in fields]
        return "\n".join((f"class {name}({', '.join(('msgspec.Struct', *options))}):", *(lines or ["    pass"])))

    def _keys(self, kind: Any) -> Iterator[str]:
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            written = self.of(hint)
            if name in kind.__optional_keys__ or typing.get_origin(hint) is typing.NotRequired:
                written = f"{self._typing('NotRequired')}[{written}]"
            yield f"    {name}: {written}"

    def _line(self, field: Field) -> str:
        written, default = self.of(field.type), field.default
        if default == _LEFT_TO_THE_CALLEE:
            written = f"{written} | msgspec.UnsetType"
        if field.wire != field.name:
            given = (
                "" if default is None else default if default.startswith("default_factory=") else f"default={default}"
            )
            default = f"msgspec.field({', '.join(filter(None, (given, f'name={literal(field.wire)}')))})"
        elif default is not None and default.startswith("default_factory="):
            default = f"msgspec.field({default})"
        return f"    {field.name}: {written}" + ("" if default is None else " = ..." if self.stub else f" = {default}")

    def default(self, value: Any, factory: Any) -> str:
        """A default as an expression. One that cannot be written is not sent, and the callee's holds."""
        if factory in _BARE or (type(value) in _BARE and not value):
            return f"default_factory={(factory if factory in _BARE else type(value)).__name__}"
        if isinstance(value, enum.Enum):
            return f"{self.of(type(value))}.{value.name}"
        return literal(value) or _LEFT_TO_THE_CALLEE


_LEFT_TO_THE_CALLEE = "msgspec.UNSET"


def _value(value: Any) -> str:
    return literal(value) or repr(value)


def _unwrapped(kind: Any) -> Any:
    """An annotation without extras, new names of types and type variables, which say nothing about its shape."""
    while True:
        if isinstance(kind, typing.TypeVar):
            return Any
        if hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        elif type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        elif typing.get_origin(kind) in _WRAPPERS:
            kind = typing.get_args(kind)[0]
        else:
            return kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and (
        (issubclass(kind, msgspec.Struct | enum.Enum) and kind.__module__ not in ("msgspec", "enum"))
        or dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_field_defaults"))
        or hasattr(kind, "model_fields")
    )


def _fields(kind: Any, names: Names) -> Iterator[Field]:
    if issubclass(kind, msgspec.Struct):
        for f in msgspec.structs.fields(kind):
            default = None if f.required else names.default(f.default, f.default_factory)
            yield Field(f.name, f.encode_name, f.type, default)
        return
    if hasattr(kind, "model_fields"):
        for name, found in kind.model_fields.items():
            default = None if found.is_required() else names.default(found.default, found.default_factory)
            yield Field(name, name, found.annotation, default)
        return
    hints = typing.get_type_hints(kind, include_extras=True)
    if dataclasses.is_dataclass(kind):
        for d in dataclasses.fields(kind):
            none = d.default is dataclasses.MISSING and d.default_factory is dataclasses.MISSING
            yield Field(d.name, d.name, hints[d.name], None if none else names.default(d.default, d.default_factory))
        return
    for name in kind._fields:
        default = names.default(kind._field_defaults[name], None) if name in kind._field_defaults else None
        yield Field(name, name, hints.get(name, Any), default)


def _options(kind: Any, fields: list[Field]) -> Iterator[str]:
    """The options of a struct that change how it travels, or whether it can be a key of a dictionary."""
    config = getattr(kind, "__struct_config__", None)
    if config is not None:
        if config.tag is not None:
            yield f"tag_field={literal(config.tag_field)}"
            yield f"tag={literal(config.tag)}"
        yield from (f"{name}=True" for name in ("array_like", "forbid_unknown_fields") if getattr(config, name))
    if getattr(config or inspect.getattr_static(kind, "__dataclass_params__", None), "frozen", False):
        yield "frozen=True"
    optional = [field.default is not None for field in fields]
    if optional != sorted(optional):
        yield "kw_only=True"
