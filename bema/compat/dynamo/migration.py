"""Migration: a request for tokens that goes on with another worker when its own ends, as Dynamo's front end does it. Pure.

The worker need know nothing of it: it is sent the prompt with the tokens that came so far, and that many fewer to generate.

Laws: what is sent again holds every token that its reader was given, so none comes twice or is left out. A request that cannot be
continued so is none of ours: it has no `token_ids`, it is decoded under guidance, or it has grown too long.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bema.compat.dynamo.context import Annotated
from bema.core.errors import BemaError, Disconnected, Refused, RemoteError, StreamCut, Unavailable

LIMIT: Final = "DYN_MIGRATION_LIMIT"
LONGEST: Final = "DYN_MIGRATION_MAX_SEQ_LEN"

_TOKENS: Final = "token_ids"
_STOP: Final = "stop_conditions"


class MigrationLimits(NamedTuple):
    """`times`: how often one request may move; `longest`: the tokens, prompt included, up to which it may, None for any."""

    times: int = 0
    longest: int | None = None

    @classmethod
    def of(cls, times: int | None, environment: Mapping[str, str] = os.environ) -> MigrationLimits:
        """What was asked for, else what the environment says; `Refused` (bad_setting) for what is no such number."""
        said = _number(LIMIT, environment) if times is None else times
        return cls(said or 0, _number(LONGEST, environment))


class Migration:
    """Of one request, from its first sending to its end."""

    def __init__(self, request: Any, limits: MigrationLimits) -> None:
        self._limits = limits
        self._came: list[int] = []
        self._moves = 0
        self._finished = False
        tokens = request.get(_TOKENS) if isinstance(request, dict) else None
        fits = isinstance(tokens, list) and limits.times and not _guided(request)
        self._request: dict[str, Any] | None = request if fits else None
        self._grown()

    def take(self, item: Any) -> None:
        """An item that the reader is about to be given."""
        if self._request is None:
            return
        said = Annotated.of(item).data()
        if isinstance(said, dict):
            self._came += said.get(_TOKENS) or ()
            self._finished = self._finished or said.get("finish_reason") is not None
            self._grown()

    def _grown(self) -> None:
        longest = self._limits.longest
        if (
            self._request is not None
            and longest is not None
            and len(self._request[_TOKENS]) + len(self._came) > longest
        ):
            self._request, self._came = None, []  # else what is kept would grow with the stream

    def again(self, error: BemaError) -> dict[str, Any] | None:
        """The request that goes on where the stream broke off; None where it ends with this error, or was `whole`."""
        if self._request is None or self._moves >= self._limits.times or self.whole or not worker_ended(error):
            return None
        self._moves += 1
        request: dict[str, Any] = {**self._request, _TOKENS: [*self._request[_TOKENS], *self._came]}
        if (most := self._most()) is not None:
            request[_STOP] = {**request[_STOP], "max_tokens": most - len(self._came)}
        return request

    def _most(self) -> int | None:
        most = ((self._request or {}).get(_STOP) or {}).get("max_tokens")
        return most if isinstance(most, int) else None

    @property
    def whole(self) -> bool:
        """Whether every token came, and only the end of the stream was lost: none more may be asked for."""
        most = self._most()
        return self._finished or (most is not None and most <= len(self._came))


def _guided(request: dict[str, Any]) -> bool:
    # the state of the grammar would be gone with the worker
    return (request.get("sampling_options") or {}).get("guided_decoding") is not None


def worker_ended(error: BemaError) -> bool:
    """Whether the worker ended and not the request: that is what it means there that a generator exits, too."""
    if isinstance(error, RemoteError):
        return error.type == GeneratorExit.__name__
    # with a status, its handler said it
    return isinstance(error, Unavailable | Disconnected | StreamCut) and "status" not in error.details


def _number(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name, "")
    if text and not (text.isascii() and text.isdecimal()):
        raise Refused(f"{name} is {text!r}, which is not a whole number", code="bad_setting")
    return int(text) if text else None
