"""The layout of the keys under which durable calls are kept, and the way there from every layout that was released.

Laws: steps are numbered and go forward only; a released step is never changed. A step and its number are one group: whenever the
process dies, the old layout or the new one is there, whole. A newer layout is not touched. Layout 1 bears no number: a new file is
opened on a full disk, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bema.core.errors import Refused
from bema.state.engine import Mutation, StateEngine

_KEY: Final = "meta/layout"

Step = Callable[[StateEngine], Awaitable[list[Mutation]]]

STEPS: Final[tuple[Step, ...]] = ()
"""The first takes calls from layout 1 to 2, and so on."""


async def bring_up(state: StateEngine, steps: Sequence[Step] = STEPS) -> None:
    """Give the calls the layout of today; `Refused` (store_newer) for one that this bema does not know."""
    found = await state.get(_KEY)
    number = 1 if found is None else int(found.value)
    if number > 1 + len(steps):
        raise Refused(
            f"the durable calls have layout {number}; this bema knows up to {1 + len(steps)}", code="store_newer"
        )
    for step in steps[number - 1 :]:
        number += 1
        await state.apply([*await step(state), Mutation(_KEY, str(number).encode())])
