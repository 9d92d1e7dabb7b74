"""Decision: which deployment a request is for: `decide(target, host, origin, hosts) -> Forward | BemaError`. Pure.

Laws: the path alone names a deployment, in one spelling. A path that decoding or normalising would change is refused (400),
and one that names no deployment is unknown (404). The part after the id belongs to the instance and passes byte for byte.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from bema.core.errors import BemaError, Denied, Invalid, NotFound

__all__ = ["Decision", "Forward", "Hosts", "decide"]

_ROUTE = re.compile(rb"/gateway/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?=[/?]|\Z)")
_AMBIGUOUS = re.compile(rb"(?i)%(?:2f|5c|00|2e|25)|\\|\.\.|//|/\./")
_LOOPBACK = re.compile(rb"(?i)(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?\Z")
_PORT = re.compile(rb":[0-9]{1,5}\Z")
_ORIGIN = re.compile(rb"(?i)https?://([^/?#@\s]+)\Z")


class Forward(NamedTuple):
    """Forward a request for `target` to an instance of `deployment`; links in the answer go under `prefix`."""

    deployment: str
    prefix: bytes
    target: bytes


Decision = Forward | BemaError


class Hosts:
    """The names that a listener answers to: on loopback this machine's and those of the setting `hosts`, else any.

    DNS rebinding: a foreign page that resolves its own name to this machine shows itself by Host or by Origin.
    """

    def __init__(self, bound: str = "127.0.0.1", named: str = "") -> None:
        names = {name.strip().lower() for name in named.split(",")} - {""}
        # who listens on a network without naming itself is called by names that nobody here knows
        self._any = not names and not _is_loopback(_authority(bound))
        self._names = frozenset(_authority(name) for name in {*names, bound.lower()})

    def refusal(self, host: bytes, origin: bytes | None) -> BemaError | None:
        """Why a request with this Host and Origin is not answered, or None."""
        if self._any:
            return None
        if not self._own(host):
            return _foreign(f"the Host {_show(host)} is not this machine's")
        if origin is not None and not ((found := _ORIGIN.match(origin)) and self._own(found[1])):
            return _foreign(f"the Origin {_show(origin)} is foreign")
        return None

    def _own(self, host: bytes) -> bool:
        return _is_loopback(host) or _PORT.sub(b"", host.lower()) in self._names


def decide(target: bytes, host: bytes, origin: bytes | None, hosts: Hosts) -> Decision:
    """The deployment that `target` names, or the error to answer with."""
    if (refused := hosts.refusal(host, origin)) is not None:
        return refused
    # One spelling, lower case: what two components could compare differently names nothing here.
    found = _ROUTE.match(target)
    if found is None:
        return _unknown(target)
    rest = target[found.end() :]
    return Forward(found[1].decode(), found[0], rest if rest[:1] == b"/" else b"/" + rest)


@functools.lru_cache(maxsize=256)
def _is_loopback(host: bytes) -> bool:
    return _LOOPBACK.match(host) is not None


def _authority(host: str) -> bytes:
    # an IPv6 address stands in brackets there
    return (f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host).encode()


def _foreign(message: str) -> BemaError:
    return Denied(
        f"{message}; this listener answers its own machine only",
        code="forbidden",
        fix="Call it as 127.0.0.1 or localhost, from a page that came from there, or name the host in the setting hosts.",
    )


def _unknown(target: bytes) -> BemaError:
    path = target.partition(b"?")[0]
    if _AMBIGUOUS.search(path):
        return Invalid(
            "the path is not canonical", code="bad_request", fix="Send /gateway/ID/... without escapes in it."
        )
    return NotFound("no deployment is named by this path", fix="`bema ls` shows the URL of every deployment.")


def _show(value: bytes) -> str:
    return value[:100].decode("latin-1")
