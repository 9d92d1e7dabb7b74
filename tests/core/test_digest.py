"""The digest of what a service says of itself changes whenever that does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bema.core.describe import describe
from bema.core.digest import digest_of
from bema.core.spec import Parameter, ServiceSpec, Shape
from tests.core.shapes import SHAPES, TOTAL, WORDS


def changed(**more: Any) -> ServiceSpec:
    return msgspec.structs.replace(SHAPES, **more)


def with_words(**more: Any) -> ServiceSpec:
    return changed(endpoints=(msgspec.structs.replace(WORDS, **more), TOTAL))


@pytest.mark.parametrize(
    "other",
    [
        changed(name="other"),
        changed(version="1.3"),
        changed(doc=""),
        changed(slots=5),
        changed(endpoints=(WORDS,)),
        with_words(idempotent=False),
        with_words(shape=Shape.UNARY),
        with_words(returns=int),
        with_words(facts={}),
        with_words(parameters=WORDS.parameters[:2]),
        with_words(parameters=(WORDS.parameters[0], Parameter("every", int, False, 2), WORDS.parameters[2])),
        changed(endpoints=(WORDS, msgspec.structs.replace(TOTAL, facts={"requests": float}))),
    ],
)
def test_whatever_changes_changes_the_digest(other):
    assert digest_of(SHAPES) == digest_of(changed())
    assert digest_of(other) != digest_of(SHAPES)
    assert describe(other).digest == digest_of(other)
