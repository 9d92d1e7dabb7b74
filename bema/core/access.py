"""Who is asking, and what they may.

Laws: identity comes from a credential, never from a body; a principal is made here and nowhere else, and never changes;
what names nobody may nothing. "Not yours" and "not there" look the same, so `sees` is asked before anything is told.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Mapping

import msgspec

from bema.core.errors import Denied

__all__ = ["GATEWAY", "LOCAL_ADMIN", "Credentials", "Kind", "Principal", "Scope", "holder", "permitted"]


class Kind(enum.StrEnum):
    """What a principal is."""

    ADMIN = "admin"
    USER = "user"
    INSTANCE = "instance"
    PLATFORM = "platform"


class Scope(enum.StrEnum):
    """What an operation asks for."""

    READ = "deployments:read"
    WRITE = "deployments:write"
    ACTIVATE = "deployments:activate"
    STATUS = "status:read"


_MAY: Mapping[Kind, frozenset[Scope]] = {
    Kind.ADMIN: frozenset(Scope),
    Kind.USER: frozenset({Scope.READ, Scope.WRITE}),
    Kind.INSTANCE: frozenset(),
    Kind.PLATFORM: frozenset({Scope.ACTIVATE}),
}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a credential: `subject` names it and owns what it makes, `scopes` are what it may."""

    subject: str
    kind: Kind
    scopes: frozenset[Scope]

    def sees(self, owner: str) -> bool:
        """Whether what `owner` has is there for it at all."""
        return self.kind in (Kind.ADMIN, Kind.PLATFORM) or self.subject == owner

    def speaks_for(self, other: Principal) -> bool:
        """Whether it may ask in the name of `other`, as the gateway does for who came to it."""
        return self.kind is Kind.ADMIN or self == other


def holder(kind: Kind, subject: str) -> Principal:
    """Who holds a credential that was given to `subject`, with all that its kind may."""
    return Principal(subject=subject, kind=kind, scopes=_MAY[kind])


LOCAL_ADMIN = holder(Kind.ADMIN, "local")
"""Who reads the files that are the local user's alone: the admin token, the record of an instance."""
GATEWAY = holder(Kind.PLATFORM, "gateway")
"""The gateway itself, when a request of nobody's asks for an instance."""


class Credentials:
    """Tokens, and who holds each. An empty token is no credential."""

    def __init__(self, holders: Mapping[str, Principal]) -> None:
        self._holders = [(token.encode(), principal) for token, principal in holders.items() if token]

    def principal(self, token: str) -> Principal | None:
        """Who shows `token`; None for nobody. Every token is compared, each in constant time."""
        shown, found = token.encode(), None
        for known, principal in self._holders:
            if hmac.compare_digest(shown, known):
                found = principal
        return found


def permitted(principal: Principal | None, scope: Scope) -> Principal:
    """`principal`, where it may do what `scope` names.

    Raises:
        Denied: it is nobody, or may not.
    """
    if principal is None:
        raise Denied("nobody asks: this needs a principal")
    if scope not in principal.scopes:
        raise Denied(f"{principal.kind} {principal.subject!r} may not: it takes {scope}", code="forbidden")
    return principal
