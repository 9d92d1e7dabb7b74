"""`Context` of `dynamo.runtime`, over a `Call`; `Annotated`, the envelope of an answer."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bema.compat.dynamo.metadata import REQUEST_ID, TRACE, ContextMetadata
from bema.compat.dynamo.refused import refuse
from bema.core.call import Call, traceparent
from bema.core.errors import BemaError
from bema.runtime.rpc.server_call import ServerCall

MARK = "_dynamo_annotated"


class Cancelled(BemaError):
    """The call was stopped or killed before it came to anything."""

    code = "cancelled"


class Context:
    """One request: made by a caller to stop it and to send metadata along, or given to a handler that has a parameter
    `context`. Passed on to an outgoing call, it links the two: what stops one stops the other."""

    def __init__(self, id: str | None = None, metadata: dict[str, str] | None = None) -> None:
        self._call: Call = Call(id=id or secrets.token_hex(16), metadata=dict(metadata or {}))
        if id is None:
            # an id among the metadata that were given goes before one that was made here
            self._call.metadata.setdefault(REQUEST_ID, self._call.id)
        else:
            self._call.metadata[REQUEST_ID] = self._call.id
        self._stopped = asyncio.Event()
        self._ended = False
        self._killed = False
        self._linked: list[Callable[[bool], None]] = []
        self._parent: str | None = None
        self._traced = False

    @classmethod
    def of(cls, call: Call) -> Context:
        """The context of a call that is answered here."""
        made = cls(call.metadata.setdefault(REQUEST_ID, call.id))
        made._call = call
        return made

    def id(self) -> str:
        return self._call.metadata[REQUEST_ID]

    @property
    def metadata(self) -> ContextMetadata:
        """Travels with every call that this context is passed to."""
        return ContextMetadata(self._call.metadata)

    @metadata.setter
    def metadata(self, metadata: Mapping[str, str]) -> None:
        view, said = self.metadata, dict(metadata)
        view.clear()
        view.update(said)

    def travels(self) -> dict[str, str]:
        """The metadata with the request's id and its trace, as a call sends them."""
        return self._call.metadata

    def detached(self, id: str | None = None) -> Context:
        """Another request of the same trace, with what the metadata are now, which does not end with this one."""
        self._trace()
        return Context(id, {name: value for name, value in self.travels().items() if name != REQUEST_ID})

    @property
    def resume(self) -> Any:
        """Where a resumable stream is continued: the number of items that its reader has, or the cursor of the last one; else None."""
        return self._call.resume

    def is_stopped(self) -> bool:
        return self._ended or self._call.is_stopped() or self._call.is_killed()

    def is_killed(self) -> bool:
        return self._killed or self._call.is_killed()

    def stop_generating(self) -> None:
        """Ask for an early end, here and in every call that is linked."""
        self._ended = True
        self._in_loop(lambda: self._end(False))

    def kill(self) -> None:
        """End the call, and every call that is linked, without asking."""
        self._ended = self._killed = True
        self._in_loop(lambda: self._end(True))

    def _in_loop(self, act: Callable[[], None]) -> None:
        """A plain function answers in a thread, and what it ends belongs to the loop of its call."""
        call = self._call
        # a context that a caller made has no loop of its own: what it ends is of the loop it is
        # used in
        if isinstance(call, ServerCall) and asyncio._get_running_loop() is not call.conn.loop:
            call.conn.loop.call_soon_threadsafe(act)
        else:
            act()

    def _end(self, at_once: bool) -> None:
        self._stopped.set()
        for ended in tuple(self._linked):
            ended(at_once)
        if at_once:
            self._call.kill()
        else:
            self._call.stop_generating()

    async def async_killed_or_stopped(self) -> bool:
        """Wait until either is so."""
        if isinstance(self._call, ServerCall):
            await self._call.until_stopped()
        else:
            await self._stopped.wait()
        return True

    def link(self, ended: Callable[[bool], None]) -> Callable[[], None]:
        """Call `ended(killed)` when this ends; returns what takes that back."""
        self._linked.append(ended)
        watch = asyncio.ensure_future(self._watch(ended)) if isinstance(self._call, ServerCall) else None

        def unlink() -> None:
            self._linked.remove(ended)
            if watch is not None:
                watch.cancel()

        return unlink

    async def _watch(self, ended: Callable[[bool], None]) -> None:
        await self.async_killed_or_stopped()
        ended(self.is_killed())

    # W3C Trace Context

    @property
    def trace_id(self) -> str:
        return self._trace()[1]

    @property
    def span_id(self) -> str:
        return self._trace()[2]

    @property
    def parent_span_id(self) -> str | None:
        """The span that the request came from; None where the trace begins here."""
        self._trace()
        return self._parent

    def trace_headers(self) -> dict[str, str]:
        """What another protocol's request should carry on."""
        return {TRACE: "-".join(self._trace())}

    def _trace(self) -> list[str]:
        """This request's own span, which whatever is asked on its behalf is told of."""
        if not self._traced:
            came = self.travels().get(TRACE)
            own = self.travels()[TRACE] = traceparent(came)
            self._parent = came.split("-")[2] if came and came.split("-")[1:2] == own.split("-")[1:2] else None
            self._traced = True
        return self.travels()[TRACE].split("-")

    if not TYPE_CHECKING:  # with it, a misspelt name would be Any to type checkers

        def __getattr__(self, name: str) -> Any:
            return refuse("Context", name)


class Annotated:
    """One answer with what was said beside it."""

    def __init__(
        self, data: Any = None, id: str | None = None, event: str | None = None, comments: list[str] | None = None
    ) -> None:
        self._said = (data, id, event, comments)

    @classmethod
    def of(cls, item: Any) -> Annotated:
        """An item as its handler gave it: bare, or a dict tagged as an envelope."""
        if not (isinstance(item, dict) and MARK in item):
            return cls(item)
        if item.get("error") is not None:
            raise BemaError(str(item["error"]), code="remote_error")
        return cls(item.get("data"), item.get("id"), item.get("event"), item.get("comment"))

    def data(self) -> Any:
        return self._said[0]

    def id(self) -> str | None:
        return self._said[1]

    def event(self) -> str | None:
        return self._said[2]

    def comments(self) -> list[str] | None:
        return self._said[3]

    def is_error(self) -> bool:
        return False  # an error is raised

    def __repr__(self) -> str:
        return f"<annotated {self._said!r}>"
