"""The orchestrator's link: requests come in, answers and events go out, and descriptors go beside both.

Level-triggered: a new orchestrator asks `list`. What it cannot ask for any more, the ends of instances, is kept until it
says `seen`, and told again to the next one. While it is slow to read, instances are not read; when it does not read at
all, or speaks nonsense, the link is broken and it is started anew, with a fresh link and a fresh socket for descriptors.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from . import descriptors
from .descriptors import Attachments, Deliveries, DescriptorSocket
from .instances import Instances, Refusal
from .json_channel import JsonChannel
from .later import Later, Made
from .loop import READ, WRITE, Loop

# from here on instances wait in their own sockets, so that our memory holds what was read before
_SLOW = 1024 * 1024
# a list of some thousand instances with their statuses must fit; what is beyond reads nothing
_DEAF = 16 * 1024 * 1024
_KEPT_ENDS = 1000
_CLOSED = "it closed its link, or reads nothing from it"


Operation = Callable[[dict[str, Any], Attachments], dict[str, Any] | Later]


class Link:
    def __init__(self, loop: Loop, line_limit: int, broken: Callable[[str], None]) -> None:
        """`broken` is told why when the link cannot be used any more."""
        self._loop = loop
        self._line_limit = line_limit
        self._broken = broken
        self._channel: JsonChannel | None = None
        self._beside: DescriptorSocket | None = None
        self._arrived = Deliveries()
        self._unseen: dict[int, dict[str, Any]] = {}
        self._again: list[dict[str, Any]] = []
        self._instances: Instances | None = None
        self._operations: dict[str, Operation] = {}

    def serve(self, instances: Instances) -> None:
        self._instances = instances
        self._operations = {
            "spawn": instances.spawn,
            "stop": instances.stop,
            "list": instances.list,
            "lend": instances.lend,
            "forget": instances.forget,
            "announced": instances.announced,
            "note": instances.note,
            "seen": self._seen,
        }

    def open(self) -> tuple[socket.socket, socket.socket]:
        """A fresh link, in place of any old one; returns the ends that the orchestrator gets: lines, descriptors."""
        self.close()
        ours, theirs = socket.socketpair()
        self._beside, beside = descriptors.pair()
        self._channel = JsonChannel(ours, self._line_limit, _DEAF)
        self._again = list(self._unseen.values())
        self._loop.watch(self._beside.socket, READ, self._collect)
        self._watch()
        return theirs, beside

    def close(self) -> None:
        if self._beside is not None:
            self._loop.forget(self._beside.socket)
            self._beside.close()
            self._beside = None
        self._arrived.close()
        if self._channel is not None:
            self._loop.forget(self._channel.socket)
            self._channel.close()
            self._channel = None
        self._pause(False)

    def tell(self, event: dict[str, Any]) -> None:
        if event["event"] == "exited":
            self._unseen[event["instance"]] = event
            # what is dropped shows as missing in `list`, and is taken for an end that nobody saw
            if len(self._unseen) > _KEPT_ENDS:
                del self._unseen[next(iter(self._unseen))]
        self._send(event)

    def _seen(self, request: dict[str, Any], attached: Attachments) -> dict[str, Any]:
        self._unseen.pop(request["instance"], None)
        return {}

    def _send(self, message: dict[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(message)
            self._watch()

    def _watch(self) -> None:
        channel = self._channel
        if channel is None:
            return
        if channel.closed:
            self._loop.forget(channel.socket)
            # not from here: who sends is in the middle of something, and this ends the orchestrator
            self._loop.after(0.0, lambda: self._give_up(channel, _CLOSED))
            return
        self._loop.watch(channel.socket, READ | (WRITE if channel.unsent else 0), self._turn)
        self._pause(channel.unsent > _SLOW)

    def _pause(self, paused: bool) -> None:
        for child in self._instances or ():
            child.pause(paused)

    def _turn(self) -> None:
        channel = self._channel
        if channel is None:
            return
        channel.flush()
        heard = channel.receive()
        # after the lines: whatever belongs to one of them was sent before it
        self._collect()
        for message in heard.messages:
            self._answer(message)
        self._watch()
        if heard.refused:
            self._give_up(channel, heard.refused[0])

    def _collect(self) -> None:
        """Take in what came beside the lines."""
        beside, channel = self._beside, self._channel
        if beside is None or channel is None:
            return
        for delivery in beside.receive():
            self._arrived.put(delivery)
        if beside.closed:
            self._loop.forget(beside.socket)
            self._loop.after(0.0, lambda: self._give_up(channel, _CLOSED))

    def _give_up(self, channel: JsonChannel, why: str) -> None:
        if channel is self._channel:
            self.close()
            self._broken(why)

    def _answer(self, message: dict[str, Any]) -> None:
        if self._beside is None:
            return
        attached = Attachments(message.get("id", 0), self._beside, self._arrived)
        try:
            answer = _answered(message, lambda: self._called(message, attached))
        finally:
            attached.close()
        if answer is None:
            return
        # a defect in a request is answered, too: who waits for a number would wait for ever
        self._send(answer)
        # after the answer: of an instance that it has neither listed nor heard of, an end says
        # nothing
        if message.get("op") == "list":
            again, self._again = self._again, []
            for event in again:
                self._send(event)

    def _called(self, message: dict[str, Any], attached: Attachments) -> dict[str, Any] | None:
        """What an operation answers at once."""
        operation = self._operations.get(message["op"])
        if operation is None:
            raise Refusal("protocol", f"no operation {message['op']!r}")
        answer, channel = operation(message, attached), self._channel
        if not isinstance(answer, Later):
            return answer

        def settle(made: Made) -> None:
            # numbers are a link's own: another's request may have the same
            if self._channel is channel and (late := _answered(message, made)) is not None:
                self._send(late)

        answer.settle, answer.wanted = settle, lambda: self._channel is channel
        return None


def _answered(message: dict[str, Any], made: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    try:
        answer = made()
        return None if answer is None else {"id": message["id"], "ok": answer}
    except Refusal as refusal:
        return _refused(message, refusal.code, str(refusal))
    except OSError as error:
        # a machine without processes or descriptors left refuses a start; the keeper goes on
        return _refused(message, "start_failed", f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return _refused(message, "protocol", f"a malformed request: {type(error).__name__}: {error}")


def _refused(message: dict[str, Any], code: str, text: str) -> dict[str, Any]:
    return {"id": message.get("id"), "error": {"code": code, "message": text}}
