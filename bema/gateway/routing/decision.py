"""Decision: which deployment a request is for: `decide(target, host, origin, loopback) -> Forward | BemaError`. Pure.

Laws: the path alone names a deployment, in one spelling. A path that decoding or normalising would change is refused (400),
and one that names no deployment is unknown (404). The part after the id belongs to the instance and passes byte for byte.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from bema.core.errors import BemaError, Denied, Invalid, NotFound

__all__ = ["Decision", "Forward", "decide"]

_ROUTE = re.compile(rb"/gateway/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?=[/?]|\Z)")
_AMBIGUOUS = re.compile(rb"(?i)%(?:2f|5c|00|2e|25)|\\|\.\.|//|/\./")
_LOOPBACK = re.compile(rb"(?i)(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?\Z")
_ORIGIN = re.compile(rb"(?i)https?://([^/?#@\s]+)\Z")


class Forward(NamedTuple):
    """Forward a request for `target` to an instance of `deployment`; links in the answer go under `prefix`."""

    deployment: str
    prefix: bytes
    target: bytes


Decision = Forward | BemaError


def decide(target: bytes, host: bytes, origin: bytes | None, *, loopback: bool) -> Decision:
    """The deployment that `target` names, or the error to answer with. A `loopback` listener answers its own machine."""
    if loopback:
        # DNS rebinding: a foreign page that resolves its own name to this machine shows itself by Host or by Origin
        if not _is_loopback(host):
            return _foreign(f"the Host {_show(host)} is not this machine's")
        if origin is not None and not _is_own_origin(origin):
            return _foreign(f"the Origin {_show(origin)} is foreign")
    found = _ROUTE.match(target)
    if found is None:
        return _unknown(target)
    rest = target[found.end() :]
    return Forward(found[1].decode(), found[0], rest if rest[:1] == b"/" else b"/" + rest)


@functools.lru_cache(maxsize=256)
def _is_loopback(host: bytes) -> bool:
    return _LOOPBACK.match(host) is not None


def _is_own_origin(origin: bytes) -> bool:
    found = _ORIGIN.match(origin)
    return found is not None and _is_loopback(found[1])


def _foreign(message: str) -> BemaError:
    return Denied(
        f"{message}; this listener answers its own machine only",
        code="forbidden",
        fix="Call it as 127.0.0.1 or localhost, from a page that came from there.",
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
