"""What a child writes, without its secrets, for who keeps the log and knows none of them.

Laws: the keeper is told digests, keyed anew for each start, and the lengths, which say where to look; never a value. A piece of a line is left
out where it is a whole secret, or a whole line of one, that stands between two places where words may end. What is shorter
than `LEAST` characters is no secret to hide: it would blot ordinary text.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import Any

LEAST = 6
HIDDEN = "[secret]"


class Redactor:
    """Made of what `told` gives."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._key = bytes.fromhex(told["key"])
        self._digests = frozenset(told["digests"])
        # the longest first: one secret may be how another begins
        self._lengths = sorted(set(told["lengths"]), reverse=True)

    def __call__(self, text: str) -> str:
        if len(text) < LEAST:
            return text
        edges = _edges(text)
        known, kept, done = frozenset(edges), [], 0
        for start in edges:
            if start < done:
                continue
            for length in self._lengths:
                if start + length in known and _digest(text[start : start + length], self._key) in self._digests:
                    kept += [text[done:start], HIDDEN]
                    done = start + length
                    break
        return "".join((*kept, text[done:]))


def told(values: Iterable[str]) -> dict[str, Any]:
    """What a redactor of these values is made of, from which nobody finds them."""
    key = secrets.token_bytes(32)
    pieces = {piece for value in values for piece in (value, *value.splitlines()) if len(piece) >= LEAST}
    return {
        "key": key.hex(),
        "digests": sorted(_digest(piece, key) for piece in pieces),
        "lengths": sorted({len(piece) for piece in pieces}),
    }


def _edges(text: str) -> list[int]:
    """Where a piece may begin or end: both sides of whatever is no letter and no digit."""
    return [0, *(n for n in range(1, len(text)) if not (text[n - 1].isalnum() and text[n].isalnum())), len(text)]


def _digest(text: str, key: bytes) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), key=key, digest_size=16).hexdigest()
