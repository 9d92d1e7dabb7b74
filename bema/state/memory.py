"""The engine that forgets: the twin for tests, and the plainest reading of what an engine promises.

It keeps nothing on disk and is bound to no loop. `name` and `older` are of no use to it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence

from bema.core.errors import Refused
from bema.core.limits import DEFAULTS, Limits
from bema.core.settings import PartSettings
from bema.state.engine import (
    LAST,
    Entry,
    Mutation,
    Older,
    RevisionConflict,
    StateBounds,
    StateChange,
    StateWatch,
    check_key,
    digest_of,
    no_blob,
)
from bema.state.feed import Feed


class MemoryEngine:
    """Python orders text by code points, which is the order of its bytes in UTF-8."""

    @classmethod
    async def open(cls, settings: PartSettings, name: str = "state.sqlite", older: Older | None = None) -> MemoryEngine:
        return cls(settings.limits)

    @classmethod
    def check(cls, settings: PartSettings, name: str = "state.sqlite") -> None:
        """Nothing is there before it is opened."""

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        self._bounds = StateBounds.of(limits)
        self._feed = Feed()
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._blobs: dict[str, bytes] = {}
        self._closed = False

    @property
    def revision(self) -> int:
        return self._feed.revision

    async def apply(self, mutations: Sequence[Mutation]) -> int:
        self._must_be_open()
        self._bounds.check(mutations)
        # all conditions before any change: a group happens whole or not at all
        for key, _, wanted in mutations:
            entry = self._entries.get(key)
            found = entry.revision if entry is not None else 0
            if wanted is not None and wanted != found:
                raise RevisionConflict(key, found)
        changes = []
        for revision, (key, value, _) in enumerate(mutations, self.revision + 1):
            if value is None and key not in self._entries:
                continue
            self._change(key, value, revision)
            changes.append(StateChange(revision, key, value))
        self._feed.publish(changes, self.revision + len(mutations))
        return self.revision

    def _change(self, key: str, value: bytes | None, revision: int) -> None:
        if value is None:
            del self._entries[key]
            del self._keys[bisect_left(self._keys, key)]
            return
        if key not in self._entries:
            insort(self._keys, key)
        self._entries[key] = Entry(key, bytes(value), revision)

    async def get(self, key: str) -> Entry | None:
        self._must_be_open()
        check_key(key)
        return self._entries.get(key)

    async def scan(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[Entry]:
        self._must_be_open()
        found: list[Entry] = []
        first = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        for number in range(first, len(self._keys)):
            key = self._keys[number]
            if len(found) >= limit or not key.startswith(prefix):
                break
            found.append(self._entries[key])
        return found

    async def scan_back(self, prefix: str, before: str = "", limit: int = 1000) -> list[Entry]:
        self._must_be_open()
        first, last = bisect_left(self._keys, prefix), bisect_left(self._keys, prefix + LAST)
        if before:
            last = min(last, bisect_left(self._keys, before))
        return [self._entries[self._keys[number]] for number in range(last - 1, max(first, last - limit) - 1, -1)]

    def watch(self, from_revision: int, prefix: str = "") -> StateWatch:
        self._must_be_open()
        return self._feed.watch(from_revision, prefix)

    async def put_blob(self, content: bytes) -> str:
        self._must_be_open()
        self._bounds.check_blob(content)
        digest = digest_of(content)
        self._blobs[digest] = bytes(content)
        return digest

    async def blob(self, digest: str) -> bytes:
        self._must_be_open()
        if digest not in self._blobs:
            raise no_blob(digest)
        return self._blobs[digest]

    async def blobs(self) -> list[str]:
        self._must_be_open()
        return sorted(self._blobs)

    async def drop_blobs(self, digests: Iterable[str]) -> None:
        self._must_be_open()
        for digest in digests:
            self._blobs.pop(digest, None)

    async def close(self) -> None:
        self._closed = True
        self._feed.close()

    def _must_be_open(self) -> None:
        if self._closed:
            raise Refused("the state is closed", code="state_failed")
