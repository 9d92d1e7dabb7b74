"""Descriptors beside the orchestrator's link: a SOCK_SEQPACKET socket on which each message names the one it carries.

Laws: what goes with a request, or with its answer, is sent before it on this socket, so whoever reads a line finds its
descriptors waiting; nothing blocks; and whatever nobody takes is closed, in the kernel's queue too when the socket goes.
Both ends use this module: asyncio's transports lose descriptors, so the orchestrator reads the socket itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_MESSAGE = 1024  # bytes; it holds a number and a name
_WAITING = 1024  # descriptors that may wait for their lines
_FULL = -1  # what arrives where this process has no place for another descriptor


class Delivery(NamedTuple):
    """One descriptor, and the request it belongs to."""

    request: int
    name: str
    descriptor: int


class DescriptorSocket:
    """One end. Never blocks; a peer that breaks the rules, or goes, leaves it `closed`."""

    def __init__(self, end: socket.socket) -> None:
        # the keeper has one thread: a peer that does not read must cost a refusal, not a wait
        end.setblocking(False)
        self.socket = end
        self.closed = False

    def send(self, request: int, name: str, descriptor: int) -> None:
        """Send a copy. `BlockingIOError` while the peer reads nothing, another `OSError` when it is gone."""
        message = json.dumps({"request": request, "name": name}).encode()
        socket.send_fds(self.socket, [message], [descriptor])

    def receive(self) -> Iterator[Delivery]:
        """What has arrived; the descriptors are the caller's to close."""
        while not self.closed and (delivery := self._one()) is not None:
            yield delivery

    def _one(self) -> Delivery | None:
        try:
            # not socket.recv_fds: before Python 3.13 it drops its flags, and what arrives would be inherited
            data, ancillary, flags, _ = self.socket.recvmsg(_MESSAGE, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError:
            data, ancillary, flags = b"", [], 0
        carried = [descriptor for *_, rights in ancillary for (descriptor,) in struct.iter_unpack("i", rights)]
        try:
            said = json.loads(data)
            request, name = said["request"], said["name"]
            if not (isinstance(request, int) and isinstance(name, str)) or (flags & socket.MSG_TRUNC):
                raise ValueError(said)
            if not carried and not flags & socket.MSG_CTRUNC:
                raise ValueError(said)
        except (ValueError, KeyError, TypeError):
            # an empty message is the peer's end; one that names nothing could be meant for anybody
            self.closed = True
            for descriptor in carried:
                os.close(descriptor)
            return None
        return Delivery(request, name, carried[0] if carried else _FULL)

    def close(self) -> None:
        self.closed = True
        self.socket.close()


class Deliveries:
    """What has arrived and waits for its line, at most so much of it: the oldest is closed for the newest."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, delivery: Delivery) -> None:
        key = (delivery.request, delivery.name)
        # a number that is used twice is a broken peer's: the older would never be asked for
        if key in self._waiting:
            _close(self._waiting.pop(key))
        self._waiting[key] = delivery.descriptor
        if len(self._waiting) > _WAITING:
            _close(self._waiting.pop(next(iter(self._waiting))))

    def take(self, request: int, name: str) -> int:
        """The descriptor, now the caller's. `KeyError` when none came, `OSError` when there was no place for it."""
        descriptor = self._waiting.pop((request, name))
        # said where it is taken, not where it came: only now it is known whose request it fails
        if descriptor == _FULL:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return descriptor

    def drop(self, request: int) -> None:
        """Close what came with a request and was not taken."""
        for key in [key for key in self._waiting if key[0] == request]:
            _close(self._waiting.pop(key))

    def close(self) -> None:
        while self._waiting:
            _close(self._waiting.popitem()[1])


class Attachments:
    """The descriptors of one request: those that came with it, and those that go before its answer."""

    def __init__(self, request: int, beside: DescriptorSocket, arrived: Deliveries) -> None:
        self._request = request
        self._beside = beside
        self._arrived = arrived

    def take(self, name: str) -> int:
        """One that came, now the caller's. `KeyError` when it did not come, `OSError` when there was no place for it."""
        return self._arrived.take(self._request, name)

    def give(self, name: str, descriptor: int) -> None:
        """Send a copy. `OSError` when the peer takes none."""
        self._beside.send(self._request, name, descriptor)

    def close(self) -> None:
        self._arrived.drop(self._request)


def pair() -> tuple[DescriptorSocket, socket.socket]:
    """Our end and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return DescriptorSocket(ours), theirs


def _close(descriptor: int) -> None:
    if descriptor != _FULL:
        with contextlib.suppress(OSError):
            os.close(descriptor)
