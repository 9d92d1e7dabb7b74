"""A discovery that counts how often it was asked for a view; all else is bema's in-memory one.

Its counter begins where `[parts."bema.discovery"] from = 5` says, or `BEMA_DISCOVERY__FROM=5`.
"""

from __future__ import annotations

from bema.core.settings import PartSettings
from bema.runtime.discovery.discovery import View
from bema.runtime.discovery.memory import MemoryDiscovery


class CountingDiscovery(MemoryDiscovery):
    """Keeps Discovery's promises, and `asked`."""

    def __init__(self, asked: int = 0) -> None:
        super().__init__()
        self.asked = asked

    @classmethod
    def open(cls, settings: PartSettings) -> CountingDiscovery:
        return cls(int(settings.get("from", 0)))

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        self.asked += 1
        return await super().view(namespace, component)
