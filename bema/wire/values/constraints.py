"""What an annotation demands of a value beyond its type: `Annotated[int, Gt(0)]`, `Field(max_length=3)`, a validator.

Law: a constraint is enforced, or refused where it is declared. What msgspec can check goes into its own `Meta`; the other
marks of annotated_types are checked here; what is Pydantic's is checked by Pydantic. A validator may refuse a value and
may not change it: what arrives is what was sent.
"""

from __future__ import annotations

import datetime as dt
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec

from bema.core.errors import BadDeclaration
from bema.wire.values import equal

Check = Callable[[Any], None]

_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: value > bound,
    "ge": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "le": lambda value, bound: value <= bound,
    "multiple_of": lambda value, bound: value % bound == 0,
    "min_length": lambda value, bound: len(value) >= bound,
    "max_length": lambda value, bound: len(value) <= bound,
}
_MARKS = {"Gt": "gt", "Ge": "ge", "Lt": "lt", "Le": "le", "MultipleOf": "multiple_of"}
_LENGTHS = {"MinLen": "min_length", "MaxLen": "max_length"}
# they tell a reader something and demand nothing of a value
_SILENT = ("DocInfo", "Unit")


class Demands(msgspec.Struct, frozen=True):
    """`meta` is what msgspec checks, `marks` are those of annotated_types that it cannot, `pydantic` is Pydantic's."""

    meta: dict[str, Any]
    marks: list[Any]
    pydantic: list[Any]
    discriminates: bool


def read(metadata: Iterable[Any]) -> Demands:
    """Sort what stands behind a type in `Annotated`. What is nobody's constraint (a text, a `Doc`) is left out."""
    found = Demands({}, [], [], discriminates=any(_discriminates(mark) for mark in metadata))
    for mark in _flat(metadata):
        kind = type(mark).__name__
        # by what it can do, not by import: Pydantic need not be installed where bema is
        if hasattr(mark, "__get_pydantic_core_schema__") or _is_of("pydantic", mark):
            found.pydantic.append(mark)
        elif any(base.__module__ == "annotated_types" for base in type(mark).__mro__):
            if kind in _SILENT:
                continue
            # msgspec takes one bound of a kind; a second one is checked beside it
            if (name := (_MARKS | _LENGTHS).get(kind)) and name not in found.meta:
                found.meta[name] = getattr(mark, name)
            else:
                found.marks.append(mark)
    return found


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    """Groups are what they hold: an `Interval`, `StringConstraints`, the `Field` of a parameter."""
    for mark in metadata:
        if type(mark).__name__ == "FieldInfo" and _is_of("pydantic", mark):
            yield from _flat(mark.metadata)
            if mark.discriminator is not None:
                yield mark
        elif getattr(mark, "__is_annotated_types_grouped_metadata__", False):
            yield from _flat(mark)
        else:
            yield mark


def _is_of(package: str, mark: Any) -> bool:
    return type(mark).__module__.partition(".")[0] == package


def _discriminates(mark: Any) -> bool:
    return type(mark).__name__ == "Discriminator" or getattr(mark, "discriminator", None) is not None


def by_name(name: str, bound: Any) -> Check:
    def check(value: Any) -> None:
        if not _COMPARED[name](value, bound):
            raise ValueError(f"{equal.show(value)} does not keep {name}={bound!r}")

    return check


def unless_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def of_mark(mark: Any) -> Check:
    """The check of one mark of annotated_types that has no place in msgspec's `Meta`."""
    kind = type(mark).__name__
    if (name := (_MARKS | _LENGTHS).get(kind)) is not None:
        return by_name(name, getattr(mark, name))
    if kind in ("Predicate", "Not"):
        return _predicate(mark.func, wanted=kind == "Predicate")
    if kind == "Timezone":
        return _timezone(mark.tz)
    raise BadDeclaration(
        f"{mark!r} cannot be enforced", fix="Use a constraint of msgspec, annotated_types or Pydantic."
    )


def _predicate(true: Callable[[Any], bool], *, wanted: bool) -> Check:
    def check(value: Any) -> None:
        if bool(true(value)) is not wanted:
            raise ValueError(f"{equal.show(value)} does not keep {getattr(true, '__qualname__', true)!s}")

    return check


def _timezone(zone: Any) -> Check:
    def check(value: dt.datetime) -> None:
        if zone is None or zone is ...:
            kept = (value.tzinfo is None) is (zone is None)
        else:
            kept = value.tzinfo is not None and (
                value.tzinfo == zone if isinstance(zone, dt.tzinfo) else str(value.tzinfo) == zone
            )
        if not kept:
            raise ValueError(f"{value!r} does not keep the time zone {zone!r}")

    return check


def adapter(declared: Any) -> Any:
    """Pydantic's reader of a type. Who declares what is Pydantic's has imported it; bema does not."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None:
        raise BadDeclaration(f"{declared!r} is read by Pydantic, which is not imported", fix="Import pydantic.")
    try:
        return pydantic.TypeAdapter(declared)
    except (pydantic.PydanticUserError, TypeError, NameError) as error:
        raise BadDeclaration(f"{declared!r} cannot travel: {error}") from error


def of_pydantic(inner: Any, marks: list[Any]) -> Check:
    """Pydantic's constraints and validators, over a value that is of the inner type already."""
    try:
        # some inner types mean nothing to Pydantic: then its marks are checked without the type
        validate = adapter(_annotated(inner, marks)).validator.validate_python
    except BadDeclaration:
        validate = adapter(_annotated(Any, marks)).validator.validate_python

    def check(value: Any) -> None:
        try:
            # strict: a lax validator would turn a text into a number, which is another value
            kept = validate(value, strict=True)
        except ValueError as error:
            raise ValueError(said(error)) from error
        if (found := equal.difference(value, kept)) is not None:
            raise ValueError(f"a validator would change it: {found.says}")

    return check


def said(error: Exception) -> str:
    """What Pydantic has against a value, in one line, with the path as msgspec writes it."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    # the first one is enough to act on, and their list has no bound
    first, *more = errors(include_url=False, include_context=False, include_input=False)
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    says = first["msg"] + (f" (and {len(more)} more)" if more else "")
    return f"{says} - at `${path}`" if path else says


def _annotated(inner: Any, marks: list[Any]) -> Any:
    return functools.reduce(lambda kind, mark: Annotated[kind, mark], marks, inner)


def native(readable: Any, meta: dict[str, Any]) -> Any | None:
    """The type with the constraints that msgspec checks; None where it cannot check them on this type."""
    try:
        # asked by trying: which bounds go with which types is msgspec's to say
        found = Annotated[readable, msgspec.Meta(**meta)]
        msgspec.msgpack.Decoder(found)
    except (TypeError, ValueError):
        return None
    return found
