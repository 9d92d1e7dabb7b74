"""What every state engine promises: values under keys, changed together, watched in order; and content by its digest.

An engine knows bytes and nothing of what they mean. Laws: what returned is durable; a group of mutations happens whole or
not at all; every mutation has a revision of its own, from one 64-bit counter that never goes back; a watcher sees each
change once, in that order, or is told that it missed some. One process owns an engine's file at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from bema.core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from bema.core.limits import Limits
from bema.core.settings import PartSettings
from bema.core.version import VERSION
from bema.parts import Factory

KEY_MAX = 1024
"""Bytes of a key, in UTF-8."""


class Mutation(NamedTuple):
    """One key is given a value, or taken away where `value` is None.

    With `if_revision` it happens only while the key has that revision; 0 stands for a key that is not there.
    """

    key: str
    value: bytes | None
    if_revision: int | None = None


class Entry(NamedTuple):
    """A key with its value, and the revision of the mutation that gave it."""

    key: str
    value: bytes
    revision: int


class StateChange(NamedTuple):
    """A mutation that happened; `value` is None for a key that was taken away."""

    revision: int
    key: str
    value: bytes | None


class RevisionConflict(Conflict):
    """A key has another revision than the mutation asked for: `key` and `revision` say which; nothing happened."""

    code = "conflict"

    def __init__(self, key: str, revision: int) -> None:
        super().__init__(f"{key!r} has revision {revision}", key=key, revision=revision)
        self.key = key
        self.revision = revision


class Missed(Unavailable):
    """Changes were missed: they are no longer kept, or the watcher was too slow. Scan again, and watch from there."""


Row = tuple[Any, ...]
Rows = Callable[[str], Iterator[Row]]
"""Rows of a table by its name, in the order they were written where the table keeps one."""

Kept = tuple[str, bytes] | bytes
"""A key with its value, or content."""


class Older(NamedTuple):
    """A layout from before the engine: how who owned it says what was in it.

    `tables` has the columns that are read of each table; all of them are dropped afterwards. `convert` is pure, from rows to
    what the engine keeps; it runs inside the transaction that replaces the layout, so that a death in the middle leaves the
    old one whole.
    """

    tables: Mapping[str, tuple[str, ...]]
    convert: Callable[[Rows], Iterator[Kept]]


class StateWatch(Protocol):
    """Changes as they come. `async for` waits for the next one and ends when the engine is closed."""

    def __aiter__(self) -> AsyncIterator[StateChange]: ...

    async def __anext__(self) -> StateChange:
        """The next change; `Missed` instead of a gap, for good."""
        ...

    def take(self) -> list[StateChange]:
        """What has come and was not taken yet, without waiting; `Missed` as above."""
        ...

    def close(self) -> None:
        """No more is wanted."""
        ...


class StateEngine(Protocol):
    """Keys are text without NUL, at most 1,024 bytes in UTF-8, and ordered by these bytes."""

    @classmethod
    async def open(cls, settings: PartSettings, name: str = "state.sqlite", older: Older | None = None) -> StateEngine:
        """The state `name`, made if it is not there: a file below `settings.state`, where the engine has files.

        `older` reads a layout from before the engine. `Refused` in one line:
        store_newer, state_held (another process has it), state_unwritable.
        """

    @classmethod
    def check(cls, settings: PartSettings, name: str = "state.sqlite") -> None:
        """Look at the state `name` without opening it: `Refused` (store_newer) where opening could only refuse."""

    @property
    def revision(self) -> int:
        """Of the last mutation; 0 for a new state."""
        ...

    async def apply(self, mutations: Sequence[Mutation]) -> int:
        """All of them, or none; gives the revision of the last, those before it have the numbers before.

        `RevisionConflict` names the first key that is not as asked. `Invalid` for a key that cannot be one, or that is
        there twice; `TooLarge`. `Refused` (state_unwritable) when it could not be written: nothing happened;
        (state_failed) after the disk failed: nothing more is written until the state is opened again. A caller that is
        cancelled does not know; watchers do.
        """
        ...

    async def get(self, key: str) -> Entry | None:
        """What is under a key."""
        ...

    async def scan(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[Entry]:
        """Entries whose keys begin with `prefix` and come after `after`, in order, at most `limit`."""
        ...

    async def scan_back(self, prefix: str, before: str = "", limit: int = 1000) -> list[Entry]:
        """Entries whose keys begin with `prefix`, the last first; only those before the key `before`, where it is given."""
        ...

    def watch(self, from_revision: int, prefix: str = "") -> StateWatch:
        """Changes after `from_revision` of keys that begin with `prefix`. Watch, then scan: then nothing is missed."""
        ...

    async def put_blob(self, content: bytes) -> str:
        """Keep content; gives its digest (SHA-256, hexadecimal). The same content again costs nothing. `TooLarge`."""
        ...

    async def blob(self, digest: str) -> bytes:
        """Content by its digest, or `NotFound`."""
        ...

    async def blobs(self) -> list[str]:
        """The digests of all content, in order."""
        ...

    async def drop_blobs(self, digests: Iterable[str]) -> None:
        """Forget content; what is not there is passed over. Who owns the state knows what is unused."""
        ...

    async def close(self) -> None:
        """Let go of the file. What was begun is finished first."""
        ...


class StateFactory(Factory[StateEngine], group="bema.state", api=VERSION, default="sqlite", opens="waiting"):
    """A state engine is opened with `open`."""


StateFactory.register_lazy("memory", "bema.state.memory:MemoryEngine")
StateFactory.register_lazy("sqlite", "bema.state.sqlite:SqliteEngine")


class StateBounds(NamedTuple):
    """What an engine takes, in bytes and mutations; decided once, when it is opened."""

    value: int
    blob: int
    group: int

    @classmethod
    def of(cls, limits: Limits) -> StateBounds:
        return cls(limits.state_value, limits.state_blob, limits.state_group)

    def check(self, mutations: Sequence[Mutation]) -> None:
        """`Invalid` or `TooLarge` for what can never be applied: no caller may fail a group that others are in."""
        if not mutations:
            raise Invalid("there is nothing to apply")
        if len(mutations) > self.group:
            raise TooLarge(f"{len(mutations)} mutations at once; the limit is {self.group}", limit=self.group)
        for key, value, _ in mutations:
            check_key(key)
            if value is not None and len(_bytes(value)) > self.value:
                raise TooLarge(
                    f"the value of {key!r} has {len(value)} bytes; the limit is {self.value}", limit=self.value
                )
        # a single value is bounded above; the sum is asked for groups alone
        if len(mutations) == 1:
            return
        if (size := sum(len(value) for _, value, _ in mutations if value is not None)) > self.blob:
            raise TooLarge(f"the values have {size} bytes together; the limit is {self.blob}", limit=self.blob)
        # which of two would win is nobody's promise, and the twins would differ
        if len({mutation.key for mutation in mutations}) < len(mutations):
            raise Invalid("a key is there twice")

    def check_blob(self, content: bytes) -> None:
        if len(_bytes(content)) > self.blob:
            raise TooLarge(f"the content has {len(content)} bytes; the limit is {self.blob}", limit=self.blob)


LAST: Final = "\U0010ffff" * (KEY_MAX // 4 + 1)
"""Behind a prefix, what comes after every key that begins with it."""


def check_key(key: str) -> None:
    """`Invalid` for what cannot be a key."""
    try:
        # the length alone decides for ASCII, which spares encoding it
        fits = 0 < (len(key) if key.isascii() else len(key.encode())) <= KEY_MAX and "\0" not in key
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise Invalid(f"{key[:80]!r} cannot be a key: text without NUL, 1 to {KEY_MAX} bytes of UTF-8")


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise Invalid(f"a value is bytes, not {type(value).__name__}")
    return value


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def no_blob(digest: str) -> NotFound:
    return NotFound(f"there is no content {digest}")
