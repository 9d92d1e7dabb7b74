"""Preferences: what a client would like of an answer (RFC 7240), and the key that makes its request the same one. Pure.

Law: a preference that is not understood is as if it were not there. A key that cannot be read is refused, since a request
without it could be made twice.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bema.core.errors import Invalid
from bema.gateway.http.heads import RequestHead

__all__ = ["Preferences", "idempotency_key"]

# RFC 7240 2: a token, perhaps with a value, perhaps with parameters, which none of ours has
_PREFERENCE = re.compile(
    r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*(\"(?:[^\"\\]|\\.)*\"|[^\s;,\"]*))?\s*(?:;[^,]*)?\s*\Z"
)
_MEMBER = re.compile(r"(?:\"(?:[^\"\\]|\\.)*\"|[^,\"])+")
# RFC 8941 3.3.3, which the draft of the header asks for; many clients send the bare text
_QUOTED = re.compile(r"\"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\"\\])*)\"\Z")
_MOST_KEY = 200


class Preferences(NamedTuple):
    """`respond_async`: answer before the call has ended; `wait`: the seconds that the client waits, None where it says none."""

    respond_async: bool = False
    wait: int | None = None

    @classmethod
    def of(cls, head: RequestHead) -> Preferences:
        said: dict[str, str] = {}
        for value in _values(head, b"prefer"):
            for member in _MEMBER.findall(value):
                if found := _PREFERENCE.match(member):
                    # RFC 7240 2: of one that stands there twice the first counts
                    said.setdefault(found[1].lower(), (found[2] or "").strip('"'))
        wait = said.get("wait", "")
        return cls("respond-async" in said, int(wait) if re.fullmatch("[0-9]{1,9}", wait) else None)

    def seconds(self) -> float | None:
        """How long the answer may wait for the end of the call; None: as long as the client stays."""
        if self.wait is not None:
            return float(self.wait)
        return 0.0 if self.respond_async else None

    def applied(self, *, accepted: bool) -> str:
        """`Preference-Applied`, for an answer before the end (`accepted`) or with it; empty where nothing was asked for."""
        waited = [] if self.wait is None else [f"wait={self.wait}"]
        return ", ".join((["respond-async"] if self.respond_async and accepted else []) + waited)


def idempotency_key(head: RequestHead) -> str:
    """The key, quoted or bare; empty where there is none. `Invalid` (bad_request) for one that cannot be read."""
    values = _values(head, b"idempotency-key")
    if not values:
        return ""
    text = values[0].strip()
    if quoted := _QUOTED.match(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    elif '"' in text:
        text = ""
    if len(values) > 1 or not 0 < len(text) <= _MOST_KEY:
        raise Invalid(f"Idempotency-Key is not one key of at most {_MOST_KEY} characters", code="bad_request")
    return text


def _values(head: RequestHead, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in head.headers if key.lower() == name]
