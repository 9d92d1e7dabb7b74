"""Annotations as text: `text` is short, for people; `whole` is complete, for comparing the types of two services.

Law: a text is the same in every process. It holds no address in memory, no order of a set and no name of this machine.
Equal whole texts mean that the same values are accepted.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

UNREADABLE: Final = (
    AttributeError,
    LookupError,
    NameError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""The exceptions that looking into a user's class may raise."""
_DEEPEST = 4  # of a value that stands in an annotation or is a default


def text(annotation: Any) -> str:
    """An annotation as people write it, without its constraints: `list[Text] | None`."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type):
        return _name(annotation)
    if annotation is ...:
        return "..."
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, list):  # the parameters of a callable
        return f"[{', '.join(map(text, annotation))}]"
    if hasattr(annotation, "__metadata__"):
        return text(annotation.__origin__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(text, arguments))
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(value, arguments))}]"
    if origin is not None and arguments:
        return f"{_name(origin)}[{', '.join(map(text, arguments))}]"
    return _name(annotation)


def whole(annotations: Iterable[Any]) -> str:
    """Annotations with their constraints, and the fields of every class that they name: all that decides which values fit."""
    return "\n".join(_Whole().lines(annotations))


def _name(kind: Any) -> str:
    name = getattr(kind, "__name__", None) or getattr(kind, "_name", None)
    return str(name) if name else type(kind).__name__


_PLAIN = ("builtins", "typing", "collections.abc")


class _Whole:
    """One walk over annotations: the classes that it met so far, and the texts it knows, since models repeat them."""

    def __init__(self) -> None:
        self._classes: dict[int, Any] = {}
        self._known: dict[Any, str] = {}

    def lines(self, annotations: Iterable[Any]) -> Iterator[str]:
        yield from map(self.of, annotations)
        # a class is told once however often it is named, so that models which refer to each other end
        told = 0
        while told < len(self._classes):
            for cls in list(self._classes.values())[told:]:
                told += 1
                yield f"{_name(cls)}: {'; '.join(self._members(cls))}"

    def of(self, annotation: Any) -> str:
        """The text of one annotation; the classes that it names join those that were met."""
        if isinstance(annotation, type):
            if annotation.__module__ not in _PLAIN:
                self._classes.setdefault(id(annotation), annotation)
            return _name(annotation)
        try:
            known = self._known.get(annotation)
        except TypeError:  # it holds what has no hash
            return self._read(annotation)
        if known is None:
            known = self._known[annotation] = self._read(annotation)
        return known

    def _read(self, annotation: Any) -> str:
        if hasattr(annotation, "__metadata__"):
            constraints = ", ".join(value(each) for each in annotation.__metadata__)
            return f"Annotated[{self.of(annotation.__origin__)}, {constraints}]"
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is not None and arguments and origin is not typing.Literal:
            return f"{self.of(origin)}[{', '.join(map(self.of, arguments))}]"
        for alias in ("__supertype__", "__value__"):  # a new name of another type
            if (meant := getattr(annotation, alias, None)) is not None:
                return f"{_name(annotation)}={self.of(meant)}"
        return text(annotation)

    def _members(self, cls: Any) -> Iterator[str]:
        """The fields of a class with types and defaults, or the members of an enum."""
        try:
            yield from self._fields(cls)
        except UNREADABLE as error:
            yield f"unreadable: {type(error).__name__}"

    def _fields(self, cls: Any) -> Iterator[str]:
        if issubclass(cls, enum.Enum):
            yield from (f"{member.name}={value(member.value)}" for member in cls)
        elif issubclass(cls, msgspec.Struct):
            config = cls.__struct_config__
            yield f"tag={config.tag_field}:{config.tag} array={config.array_like} closed={config.forbid_unknown_fields}"
            for field in msgspec.structs.fields(cls):
                default = "" if field.required else _default(field.default, field.default_factory)
                yield f"{field.encode_name}: {self.of(field.type)}{default}"
        elif isinstance(fields := getattr(cls, "model_fields", None), dict):  # Pydantic, which need not be loaded here
            config = getattr(cls, "model_config", {})
            yield value({name: said for name, said in config.items() if name in _CONFIGURES})
            for name, field in fields.items():
                default = "" if field.is_required() else _default(field.default, field.default_factory)
                yield f"{name}: {self.of(field.annotation)}, {value(field.metadata)}{default}"
        elif isinstance(fields := getattr(cls, "__dataclass_fields__", None), dict):  # nor need their module be
            hints = typing.get_type_hints(cls, include_extras=True)
            for each in fields.values():
                if str(each._field_type) == "_FIELD":
                    required = _is_missing(each.default) and _is_missing(each.default_factory)
                    default = "" if required else _default(each.default, each.default_factory)
                    yield f"{each.name}: {self.of(hints[each.name])}{default}"
        elif typing.is_typeddict(cls) or hasattr(cls, "_field_defaults"):
            optional = getattr(cls, "__optional_keys__", None) or getattr(cls, "_field_defaults", {})
            for name, hint in typing.get_type_hints(cls, include_extras=True).items():
                yield f"{name}{'?' if name in optional else ''}: {self.of(hint)}"


_CONFIGURES = ("extra", "strict", "str_max_length", "str_min_length", "str_strip_whitespace", "use_enum_values")


def _default(given: Any, factory: Any) -> str:
    return f"={_name(factory)}()" if _is_missing(given) else f"={value(given)}"


def _is_missing(given: Any) -> bool:
    return given is msgspec.NODEFAULT or type(given).__name__ in ("_MISSING_TYPE", "PydanticUndefinedType")


def value(given: Any, depth: int = 0) -> str:
    """A value as text that is the same in every process; parts below `_DEEPEST` levels are left out."""
    # never `repr` of an object: it may show an address, and a set has no order that two processes share
    if isinstance(given, enum.Enum):
        return f"{_name(type(given))}.{given.name}"
    if given is None or isinstance(given, bool | int | float | str | bytes):
        return repr(given)
    if isinstance(given, type) or (callable(given) and hasattr(given, "__qualname__")):
        return str(given.__qualname__)
    if depth == _DEEPEST:
        return _name(type(given))
    if isinstance(given, set | frozenset):
        return f"{{{', '.join(sorted(value(each, depth + 1) for each in given))}}}"
    if isinstance(given, list | tuple):
        return f"[{', '.join(value(each, depth + 1) for each in given)}]"
    if isinstance(given, dict):
        return f"{{{', '.join(f'{value(k, depth + 1)}: {value(v, depth + 1)}' for k, v in given.items())}}}"
    said = ", ".join(f"{name}={value(part, depth + 1)}" for name, part in _parts(given))
    return f"{_name(type(given))}({said})"


def _parts(given: Any) -> Iterator[tuple[str, Any]]:
    """The public attributes of an object, from its slots, its dictionary and `_SHOWN`."""
    names = [name for cls in type(given).__mro__ for name in _slots(cls)]
    own = getattr(given, "__dict__", {})
    for name in dict.fromkeys((*names, *own, *_SHOWN)):
        if not name.startswith("_") and (part := _part(given, name)) is not None:
            yield name, part


def _part(given: Any, name: str) -> Any:
    try:
        return getattr(given, name, None)
    except UNREADABLE:
        return None


_SHOWN = ("pattern", "gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "tz")


def _slots(cls: type) -> tuple[str, ...]:
    said = vars(cls).get("__slots__", ())
    return (said,) if isinstance(said, str) else tuple(said)
