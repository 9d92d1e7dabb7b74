"""The layout of the keys under which durable calls are kept, and the way there from every layout that was released.

Laws: steps are numbered and go forward only; a released step is never changed. A step and its number are one group: whenever the
process dies, the old layout or the new one is there, whole. A newer layout is not touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from bema.core.errors import Refused
from bema.state.engine import Mutation, StateEngine

_KEY: Final = "meta/layout"


async def _first(state: StateEngine) -> list[Mutation]:
    """Layout 1 is what the ledger's head says; nothing was released before it."""
    return []


STEPS: Final[tuple[Callable[[StateEngine], Awaitable[list[Mutation]]], ...]] = (_first,)
"""Step n takes calls from layout n to n + 1."""


async def bring_up(state: StateEngine) -> None:
    """Give the calls the layout of today; `Refused` (store_newer) for one that this bema does not know."""
    found = await state.get(_KEY)
    number = 0 if found is None else int(found.value)
    if number > len(STEPS):
        raise Refused(f"the durable calls have layout {number}; this bema knows up to {len(STEPS)}", code="store_newer")
    for step in STEPS[number:]:
        number += 1
        await state.apply([*await step(state), Mutation(_KEY, str(number).encode())])
