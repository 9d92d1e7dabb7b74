"""What callers, handlers and owners of durable calls agree on: the header of a call's id, the built-in endpoint, retries, queues."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from bema.core.errors import BadDeclaration
from bema.core.spec import EndpointSpec, OnDemand, Parameter, Shape, check_bound

HEADER: Final = "bema-call"
"""The header in which a caller gives its durable call an id: sent again with the same one, it is the same call."""

SETTING: Final = "jobs"
"""The setting in which an instance is told of the platform's service: `address`, `token`,
`data`, the id of its deployment's data, `kept`, whether calls were kept of that, and `folder`, where they are."""

ENDPOINT: Final = "_calls"
SPEC: Final = EndpointSpec(
    ENDPOINT,
    Shape.UNARY,
    (Parameter("operation", str), Parameter("arguments", dict[str, Any], required=False, default={})),
    Any,
    doc="Look after durable calls.",
)
ON_DEMAND: Final = OnDemand(SETTING, SPEC, begins="later")
"""What an idempotent endpoint has of the extension: a call of it may be made later, and until one is, nothing is opened."""


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


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """How the calls of a durable endpoint take turns: `@endpoint(durable=Queue(concurrency=4))`.

    - `concurrency`: at most so many run at once; None: as many as the process takes. One that sleeps or asks does not run.
    - `per_group`: at most so many of one group run at once. 1: one after the other.
    - `group`: the parameter whose value is the group of a call that is given none by `later(group=)`.
    - `rate`: at most so many begin within `per` seconds in the long run, and so many at once after a rest. A call that goes on
      after a wait or a death is not counted again.

    `BadDeclaration` for what lets nothing run.
    """

    concurrency: int | None = None
    per_group: int = 1
    group: str = ""
    rate: int | None = None
    per: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("concurrency", self.concurrency), ("per_group", self.per_group), ("rate", self.rate)):
            if value is not None:
                check_bound(f"Queue: {name}", value, 1)
        if not isinstance(self.group, str):
            raise BadDeclaration(f"Queue: group is the name of a parameter, not {self.group!r}")
        number = isinstance(self.per, int | float) and not isinstance(self.per, bool)
        if not number or not 0 < self.per < float("inf"):
            raise BadDeclaration(f"Queue: per is a number of seconds, more than 0, not {self.per!r}")
