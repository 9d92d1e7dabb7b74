"""A discovery that counts how often it was asked for a view; all else is bema's in-memory one."""

from __future__ import annotations

from bema.runtime.discovery.discovery import MemoryDiscovery, View


class CountingDiscovery(MemoryDiscovery):
    """Keeps Discovery's promises, and `asked`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def view(self, namespace: str | None = None, component: str | None = None) -> View:
        self.asked += 1
        return await super().view(namespace, component)
