"""The link against an orchestrator that the test plays: slow, deaf, or speaking nonsense."""

import contextlib
import json
from typing import Any

import pytest

from bema.deploy.keeper.link import Link
from bema.deploy.keeper.loop import Loop


class Silent:
    """Instances as the link sees them: what it may ask, and whether they are read."""

    def __init__(self):
        self.paused = False
        self.spawn = self.stop = self.forget = self.announced = self.note = self.lend = self.nothing

    def nothing(self, request, attached):
        return {}

    def __iter__(self):
        return iter((self,))

    def list(self, request, attached):
        return {"instances": []}

    def pause(self, paused):
        self.paused = paused


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def broken():
    return []


class Opened(Link):
    """The link whose socket for descriptors the test has no use for, as a rule."""

    beside: Any = None

    def opened(self):
        self.let_go()
        lines, self.beside = self.open()
        return lines

    def let_go(self):
        if self.beside is not None:
            self.beside.close()


@pytest.fixture
def link(loop, broken):
    link = Opened(loop, 1 << 20, broken.append)
    silent: Any = Silent()
    link.serve(silent)
    yield link
    link.close()
    link.let_go()


def exited(number, size=0):
    return {"event": "exited", "instance": number, "tail": "x" * size}


def heard(end, loop):
    loop.turn(0.0)
    end.setblocking(False)
    return [json.loads(line) for line in end.recv(1 << 20).splitlines()]


def test_a_request_is_answered_by_its_id(loop, link):
    with link.opened() as end:
        end.sendall(b'{"id": 7, "op": "list"}\n')
        loop.turn(1.0)
        assert heard(end, loop) == [{"id": 7, "ok": {"instances": []}}]


def test_while_it_is_slow_the_instances_are_not_read(loop, link):
    silent: Any = link._instances
    with link.opened() as end:
        for number in range(3):
            link.tell({"event": "line", "instance": number, "line": {"data": "x" * (1 << 20)}})
        assert silent.paused
        end.settimeout(5)
        while silent.paused:
            end.recv(1 << 20)
            loop.turn(0.1)


def test_a_deaf_one_is_given_up(loop, link, broken):
    with link.opened():
        for number in range(20):
            link.tell(exited(number, 1 << 20))
        loop.turn(0.0)
        assert broken == ["it closed its link, or reads nothing from it"]


@pytest.mark.parametrize("data", [b"hello\n", b"[1]\n", b"{" * (2 << 20) + b"\n"])
def test_one_that_speaks_nonsense_is_given_up(loop, link, broken, data):
    with link.opened() as end:
        end.setblocking(False)
        while data and not broken:
            with contextlib.suppress(BlockingIOError):
                data = data[end.send(data) :]
            loop.turn(0.0)
        while not broken:
            loop.turn(0.1)
        assert len(broken) == 1


def test_ends_are_told_again_to_the_next_until_seen(loop, link):
    link.opened().close()
    for number in (1, 2):
        link.tell(exited(number))
    with link.opened() as end:
        end.sendall(b'{"id": 1, "op": "list"}\n{"id": 2, "op": "seen", "instance": 1}\n')
        loop.turn(1.0)
        assert [message.get("instance") for message in heard(end, loop)] == [None, 1, 2, None]
    with link.opened() as end:
        end.sendall(b'{"id": 1, "op": "list"}\n')
        loop.turn(1.0)
        assert [message.get("instance") for message in heard(end, loop)] == [None, 2]
