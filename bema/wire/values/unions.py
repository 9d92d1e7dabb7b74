"""A union whose arms msgspec cannot tell apart: the arm that fits is the one that was sent.

Law: nothing is guessed. Of several arms that fit, the one whose fields are exactly those that came was sent, where each of
them is known to send all of its own; otherwise the value is refused. What nothing could tell apart is refused where it is
declared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bema.core.errors import BadDeclaration
from bema.wire.values import constraints
from bema.wire.values.records import bare, fields, is_pydantic, origin_of, show

Read = Callable[[Any], Any]


class Arm(msgspec.Struct, frozen=True):
    """`names` are those of its fields on the wire, if it always sends them all; `tolerant` leaves out unknown fields."""

    name: str
    names: frozenset[str] | None
    whole: Read
    tolerant: Read


class _Fit(msgspec.Struct, frozen=True):
    arm: Arm
    value: Any


def refuse_twins(models: list[Any]) -> None:
    """Models of the same fields, of which nothing tells the one from the other."""
    known: dict[str, Any] = {}
    for model in models:
        other = known.setdefault(_likeness(bare(model)), model)
        if other is not model:
            raise BadDeclaration(
                f"{show(other)} | {show(model)} cannot travel: both have the same fields of the same types",
                fix="Tell them apart by a field of a Literal type, or by tags of msgspec.",
            )


def _likeness(model: Any) -> str:
    cls = origin_of(model)
    if is_pydantic(cls):
        return repr(sorted((name, repr(field.annotation)) for name, field in cls.__pydantic_fields__.items()))
    # a tag is a part of what travels: two models of the same fields are told apart by it
    tag = getattr(getattr(cls, "__struct_config__", None), "tag", None)
    alike = sorted((field.wire, repr(field.type)) for field in fields(model))
    return repr(alike if tag is None else (tag, alike))


def chooser(arms: list[Arm]) -> Read:
    def choose(raw: Any) -> Any:
        # whole first: an arm that drops fields fits nearly everything
        fits, errors = _fitting([(arm, arm.whole) for arm in arms], raw)
        if not fits:
            # a newer caller may have sent a field more; its errors would only repeat the first ones
            fits, _ = _fitting([(arm, arm.tolerant) for arm in arms], raw)
        if len(fits) > 1:
            fits = _exactly(fits, raw) or fits
        if len(fits) == 1:
            return fits[0].value
        if fits:
            raise ValueError(f"it fits {' and '.join(fit.arm.name for fit in fits)}: nothing in it tells them apart")
        raise ValueError("; ".join(errors))

    return choose


def _fitting(readers: list[tuple[Arm, Read]], raw: Any) -> tuple[list[_Fit], list[str]]:
    fits, errors = list[_Fit](), list[str]()
    for arm, read in readers:
        try:
            fits.append(_Fit(arm, read(raw)))
        except (ValueError, TypeError) as error:
            says = constraints.said(error).replace(
                " - at `", " at `"
            )  # the path of the value itself is added to the whole
            errors.append(f"no {arm.name}: {says}")
    return fits, errors


def _exactly(fits: list[_Fit], raw: Any) -> list[_Fit]:
    if not isinstance(raw, dict) or any(fit.arm.names is None for fit in fits):
        return []
    return [fit for fit in fits if fit.arm.names == raw.keys()]
