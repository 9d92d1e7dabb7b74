"""Descriptions: asking instances for the description of their service, once per digest for all that have the same.

Laws: a description that was read is not asked for again. An instance of an older bema, which answers none, is known by its
record. A description holds for the component that gave it alone: none can speak for another by giving its digest.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bema.core import describe
from bema.core.describe import Description
from bema.core.errors import BadAnswer, BemaError
from bema.core.instance import Instance
from bema.core.spec import DESCRIBE, PATIENCE
from bema.runtime.rpc.built_in import BuiltIn
from bema.runtime.rpc.pool import ConnectionPool

REMEMBERED: Final = 256


class Descriptions:
    """The descriptions of the instances that one pool connects to."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._built_in = BuiltIn(pool)
        self._known: dict[tuple[str, str, str], Description] = {}

    async def of(self, instance: Instance, timeout: float = PATIENCE) -> Description:
        """The description of an instance; `timeout` is in seconds. `Unavailable`, `DeadlineExceeded`, `BadAnswer` as a call."""
        if not instance.digest:
            return describe.told(instance)
        key = (instance.component_address, instance.deployment, instance.digest)
        if (known := self._known.get(key)) is not None:
            return known
        said = await self._asked(instance, timeout)
        if said.digest == instance.digest:  # it may have changed since its record was read
            self._known[key] = said
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return said

    async def shown(self, instance: Instance, timeout: float = PATIENCE) -> Description:
        """The description of an instance, or what its record tells where it cannot be asked."""
        try:
            return await self.of(instance, timeout)
        except BemaError:
            return describe.told(instance)

    async def _asked(self, instance: Instance, timeout: float = PATIENCE) -> Description:
        said = await self._built_in.ask(instance, DESCRIBE.name, {}, timeout)
        try:
            return describe.decode(said)
        except (TypeError, msgspec.MsgspecError) as error:
            raise BadAnswer(f"{instance.component_address}.{DESCRIBE.name} answered what is no description") from error
