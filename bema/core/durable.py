"""What callers, handlers and owners of durable calls agree on: the header of a call's id, the built-in endpoint, retries."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from bema.core.errors import BadDeclaration
from bema.core.spec import EndpointSpec, Parameter, Shape

HEADER: Final = "bema-call"
"""The header in which a caller gives its durable call an id: sent again with the same one, it is the same call."""

SETTING: Final = "jobs"
"""The setting in which an instance is told of the platform's service: `address`, `token`, and `data`, the id of its deployment's data."""

ENDPOINT: Final = "_calls"
SPEC: Final = EndpointSpec(
    ENDPOINT,
    Shape.UNARY,
    (Parameter("operation", str), Parameter("arguments", dict[str, Any], required=False, default={})),
    Any,
    doc="Look after durable calls.",
)


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Waits grow by `factor` from `first` to `most` seconds, each a little at random, so that many do not come at once.

    It ends after `attempts` tries (0: as many as fit), or where the next one would begin later than `within` seconds after
    the first. `BadDeclaration` for what can never be waited.
    """

    attempts: int = 0
    first: float = 1.0
    factor: float = 2.0
    most: float = 60.0
    within: float = 900.0

    def __post_init__(self) -> None:
        if self.attempts < 0 or not (0 <= self.first <= self.most) or self.factor < 1 or self.within < 0:
            raise BadDeclaration(f"{self!r} cannot be: waits grow from `first` to `most`, and nothing is below 0")

    def after(self, tries: int, passed: float) -> float | None:
        """Seconds until the next try, after so many that failed and so many seconds since the first; None: no more."""
        if self.attempts and tries >= self.attempts:
            return None
        # the exponent is bounded: a float ends at a thousand doublings
        wait = min(self.most, self.first * self.factor ** min(tries - 1, 64)) * random.uniform(0.8, 1.0)
        return wait if passed + wait <= self.within else None
