"""`ContextMetadata`: what travels with a request, as who asks and who answers see it.

Law: it is live, and it shows what was put there and nothing else: the request's id and its trace travel beside it under
names of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Final

from bema.core.errors import Invalid

REQUEST_ID: Final = "request-id"
TRACE: Final = "traceparent"
_OWN: Final = {
    REQUEST_ID: "it is the id of the request: Context(id=...) sets it and context.id() tells it",
    TRACE: "it is the trace of the request: context.trace_headers() tells it",
}


class ContextMetadata(MutableMapping[str, str]):
    """A view of what a call sends along."""

    def __init__(self, travels: dict[str, str]) -> None:
        self._travels = travels

    def __getitem__(self, name: str) -> str:
        if name in _OWN:
            raise KeyError(name)
        return self._travels[name]

    def __setitem__(self, name: str, value: str) -> None:
        if name in _OWN:
            raise Invalid(f"metadata {name!r} cannot be set: {_OWN[name]}")
        self._travels[name] = value

    def __delitem__(self, name: str) -> None:
        if name in _OWN:
            raise KeyError(name)
        del self._travels[name]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._travels if name not in _OWN])

    def __len__(self) -> int:
        return sum(name not in _OWN for name in self._travels)

    def copy(self) -> dict[str, str]:
        return dict(self)

    def __repr__(self) -> str:
        return repr(self.copy())
