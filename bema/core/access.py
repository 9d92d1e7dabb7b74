"""Access: who asks for an operation, and what that principal may do.

Laws: identity comes from a credential, never from a body. Principals are made in this module alone and never change. A
request without a principal is denied. "Not yours" and "not there" look the same to a caller, so an operation asks `sees`
before it says anything about a deployment.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Mapping

import msgspec

from bema.core.errors import Denied

__all__ = [
    "GATEWAY",
    "LOCAL_ADMIN",
    "Credentials",
    "Kind",
    "Principal",
    "Scope",
    "acting_for",
    "granted",
    "holder",
    "permitted",
]


class Kind(enum.StrEnum):
    """What a principal is."""

    ADMIN = "admin"
    USER = "user"
    INSTANCE = "instance"
    PLATFORM = "platform"


class Scope(enum.StrEnum):
    """What a principal needs in order to be allowed an operation."""

    READ = "deployments:read"
    WRITE = "deployments:write"
    ACTIVATE = "deployments:activate"
    STATUS = "status:read"
    KEYS = "keys:write"
    CREDENTIALS = "credentials:read"


_MAY: Mapping[Kind, frozenset[Scope]] = {
    Kind.ADMIN: frozenset(Scope),
    Kind.USER: frozenset({Scope.READ, Scope.WRITE}),
    Kind.INSTANCE: frozenset(),
    Kind.PLATFORM: frozenset({Scope.ACTIVATE, Scope.CREDENTIALS}),
}


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a credential: `subject` is its name and the owner of what it makes, `scopes` are what it may do."""

    subject: str
    kind: Kind
    scopes: frozenset[Scope]

    def sees(self, owner: str) -> bool:
        """Whether this principal may know of what `owner` has."""
        return self.kind in (Kind.ADMIN, Kind.PLATFORM) or self.subject == owner

    def speaks_for(self, other: Principal) -> bool:
        """Whether this principal may ask in the name of `other`, as the gateway does for its HTTP clients."""
        return self.kind is Kind.ADMIN or self == other


def holder(kind: Kind, subject: str) -> Principal:
    """A principal with the name `subject` and all scopes of its kind."""
    return Principal(subject=subject, kind=kind, scopes=_MAY[kind])


def granted(user: str, *, admin: bool = False) -> Principal:
    """Who holds a key that was made for `user`."""
    return holder(Kind.ADMIN if admin else Kind.USER, user)


def acting_for(principal: Principal, user: str) -> Principal:
    """Who a request is made as that names `user`; with no name, `principal` itself.

    Raises:
        Denied: the name is another's, and `principal` is no administrator (code `forbidden`).
    """
    if not user or (user == principal.subject and principal.kind is Kind.USER):
        return principal
    if principal.kind is not Kind.ADMIN:
        raise Denied(f"the credential is that of {principal.subject!r}, not of {user!r}", code="forbidden")
    return granted(user)


LOCAL_ADMIN = holder(Kind.ADMIN, "local")
"""The local user: the admin token and the records of instances are in files that only this user can read."""
GATEWAY = holder(Kind.PLATFORM, "gateway")
"""The gateway itself, which asks for an instance when a request without a credential needs one."""


class Credentials:
    """Tokens, each with its holder. An empty token is no credential."""

    def __init__(self, holders: Mapping[str, Principal]) -> None:
        self._holders = [(token.encode(), principal) for token, principal in holders.items() if token]

    def principal(self, token: str) -> Principal | None:
        """The holder of `token`, or None where nobody holds it."""
        # as bytes: `compare_digest` takes text only if it is ASCII, and this text comes from outside
        shown, found = token.encode(), None
        # no early end: the time that the search takes must tell nothing of the tokens
        for known, principal in self._holders:
            if hmac.compare_digest(shown, known):
                found = principal
        return found


def permitted(principal: Principal | None, scope: Scope) -> Principal:
    """Return `principal` if it has `scope`.

    Raises:
        Denied: there is no principal, or it does not have the scope (code `forbidden`).
    """
    if principal is None:
        raise Denied("nobody asks: this needs a principal")
    if scope not in principal.scopes:
        raise Denied(f"{principal.kind} {principal.subject!r} may not: it takes {scope}", code="forbidden")
    return principal
