"""The orchestrator's link: requests come in, answers and events go out.

Level-triggered: a new orchestrator asks `list`. What it cannot ask for any more, the ends of instances, is kept until it
says `seen`, and told again to the next one. While it is slow to read, instances are not read; when it does not read at all, or speaks nonsense, the link is broken and it is
started anew.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from .instances import Instances, Refusal
from .json_channel import JsonChannel
from .loop import READ, WRITE, Loop

_SLOW = 1024 * 1024
_DEAF = 16 * 1024 * 1024
_KEPT_ENDS = 1000

Operation = Callable[[dict[str, Any]], dict[str, Any]]


class Link:
    def __init__(self, loop: Loop, line_limit: int, broken: Callable[[str], None]) -> None:
        """`broken` is told why when the link cannot be used any more."""
        self._loop = loop
        self._line_limit = line_limit
        self._broken = broken
        self._conduit: JsonChannel | None = None
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
            "forget": instances.forget,
            "announced": instances.announced,
            "seen": self._seen,
        }

    def open(self) -> socket.socket:
        """A fresh link, in place of any old one; returns the end that the orchestrator gets."""
        self.close()
        ours, theirs = socket.socketpair()
        self._conduit = JsonChannel(ours, self._line_limit, _DEAF)
        self._again = list(self._unseen.values())
        self._watch()
        return theirs

    def close(self) -> None:
        if self._conduit is not None:
            self._loop.forget(self._conduit.socket)
            self._conduit.close()
            self._conduit = None
        self._pause(False)

    def tell(self, event: dict[str, Any]) -> None:
        if event["event"] == "exited":
            self._unseen[event["instance"]] = event
            if len(self._unseen) > _KEPT_ENDS:
                del self._unseen[next(iter(self._unseen))]
        self._send(event)

    def _seen(self, request: dict[str, Any]) -> dict[str, Any]:
        self._unseen.pop(request["instance"], None)
        return {}

    def _send(self, message: dict[str, Any]) -> None:
        if self._conduit is not None:
            self._conduit.send(message)
            self._watch()

    def _watch(self) -> None:
        conduit = self._conduit
        if conduit is None:
            return
        if conduit.closed:
            self._loop.forget(conduit.socket)
            self._loop.after(0.0, lambda: self._give_up(conduit, "it closed its link, or reads nothing from it"))
            return
        self._loop.watch(conduit.socket, READ | (WRITE if conduit.unsent else 0), self._turn)
        self._pause(conduit.unsent > _SLOW)

    def _pause(self, paused: bool) -> None:
        for child in self._instances or ():
            child.pause(paused)

    def _turn(self) -> None:
        conduit = self._conduit
        if conduit is None:
            return
        conduit.flush()
        heard = conduit.receive()
        for message in heard.messages:
            self._answer(message)
        self._watch()
        if heard.refused:
            self._give_up(conduit, heard.refused[0])

    def _give_up(self, conduit: JsonChannel, why: str) -> None:
        if conduit is self._conduit:
            self.close()
            self._broken(why)

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            operation = self._operations.get(message["op"])
            if operation is None:
                raise Refusal("protocol", f"no operation {message['op']!r}")
            answer = {"id": message["id"], "ok": operation(message)}
        except Refusal as refusal:
            answer = _refused(message, refusal.code, str(refusal))
        except OSError as error:
            answer = _refused(
                message, "start_failed", f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            answer = _refused(message, "protocol", f"a malformed request: {type(error).__name__}: {error}")
        self._send(answer)
        if message.get("op") == "list":
            again, self._again = self._again, []
            for event in again:
                self._send(event)


def _refused(message: dict[str, Any], code: str, text: str) -> dict[str, Any]:
    return {"id": message.get("id"), "error": {"code": code, "message": text}}
