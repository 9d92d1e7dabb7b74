"""Keys of the API: credentials that are made for a user, told once, and known by their digest ever after.

Laws: the text of a key is in the answer that makes it, and nowhere else. What is kept is its SHA-256: a key has 256 bits of
chance, so that its digest is no easier to guess than the key is, and a slow hash, which defends what people think of, would
only make each request dearer. A key ends at an instant or when it is revoked, and names nobody from then on.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterable
from typing import Final

import msgspec

from bema.core.access import Principal, granted
from bema.core.errors import Invalid
from bema.core.naming import shown
from bema.core.redaction import hides

__all__ = ["ApiKey", "Keyring", "check_user", "digest_of", "looks_like_a_key", "new_key"]

PREFIX: Final = "bema_"
_CHANCE = 32  # bytes
_SHAPE = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{43}})([0-9a-f]{{8}})\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}\Z")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key. `created` and `expires` are instants, microseconds UTC; `expires` is 0 for one that does not."""

    name: str
    user: str
    digest: str
    admin: bool = False
    created: int = 0
    expires: int = 0
    __repr__ = hides("digest")

    @property
    def principal(self) -> Principal:
        return granted(self.user, admin=self.admin)

    def over(self, now: int) -> bool:
        return bool(self.expires) and self.expires <= now


class Keyring:
    """The keys in force, to find who shows one. `known` is False until it was told any list, be it empty."""

    def __init__(self) -> None:
        self._by_digest: dict[str, ApiKey] = {}
        self.known = False

    def hold(self, keys: Iterable[ApiKey]) -> None:
        """Take these in the place of all that were there."""
        self._by_digest = {key.digest: key for key in keys}
        self.known = True

    def digest(self, name: str) -> str:
        """That of the key of that name; empty where there is none."""
        return next((key.digest for key in self._by_digest.values() if key.name == name), "")

    def principal(self, text: str, now: int) -> Principal | None:
        """Who holds the key at the instant `now`; None where nobody does."""
        # looked up by digest: how long that takes tells of the digest, from which no key is found
        found = self._by_digest.get(digest_of(text)) if looks_like_a_key(text) else None
        return None if found is None or found.over(now) else found.principal


def new_key() -> str:
    """The text of a key that nobody has: `bema_`, 256 bits of chance, and a checksum."""
    body = secrets.token_urlsafe(_CHANCE)
    return f"{PREFIX}{body}{_checksum(body)}"


def looks_like_a_key(text: str) -> bool:
    """Whether it was a key once: the checksum finds one that was typed wrong or cut, and tells scanners what leaked."""
    found = _SHAPE.match(text)
    return found is not None and _checksum(found[1]) == found[2]


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check_user(name: str, what: str = "user") -> str:
    """Return the name of a user or of a key; `Invalid` (code `bad_name`) where it breaks the rule."""
    if not _NAME.match(name):
        raise Invalid(
            f"{what} {shown(name)} is not a name: a letter or digit, then letters, digits and . _ @ + -, at most 63",
            code="bad_name",
        )
    return name


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
