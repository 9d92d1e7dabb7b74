"""Descriptors beside the link: they arrive as what they were, and whatever nobody takes is closed."""

import os
import resource
import socket
from typing import Any

import pytest

from bema.deploy.keeper import descriptors
from bema.deploy.keeper.descriptors import Deliveries, DescriptorSocket
from bema.deploy.keeper.loop import Loop

from .conftest import ask, until
from .test_link import Opened, Silent


@pytest.fixture
def ends():
    ours, theirs = descriptors.pair()
    peer = DescriptorSocket(theirs)
    yield ours, peer
    ours.close()
    peer.close()


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)


def let_go(reading: int) -> bool:
    """Whether nobody holds the writing end any more."""
    try:
        return os.read(reading, 1) == b""
    except BlockingIOError:
        return False


def test_a_descriptor_arrives_under_its_name_and_is_not_inherited(ends, pipe):
    ours, peer = ends
    ours.send(7, "lease", pipe[1])
    os.close(pipe[1])
    [delivery] = peer.receive()
    assert (delivery.request, delivery.name) == (7, "lease")
    assert not os.get_inheritable(delivery.descriptor)
    assert not let_go(pipe[0])
    os.close(delivery.descriptor)
    assert let_go(pipe[0])


def test_both_directions_at_once(ends, pipe):
    ours, peer = ends
    ours.send(1, "there", pipe[1])
    peer.send(2, "back", pipe[1])
    os.close(pipe[1])
    found = [*ours.receive(), *peer.receive()]
    assert [(each.request, each.name) for each in found] == [(2, "back"), (1, "there")]
    for each in found:
        os.close(each.descriptor)


@pytest.mark.parametrize("said", [b"lease", b"{}", b'{"request": "7", "name": "x"}', b"[]", b" " * 2000])
def test_one_that_speaks_nonsense_is_closed_and_so_is_what_it_sent(ends, pipe, said):
    ours, peer = ends
    socket.send_fds(ours.socket, [said], [pipe[1]])
    os.close(pipe[1])
    assert list(peer.receive()) == []
    assert peer.closed
    assert let_go(pipe[0])


def test_a_message_without_a_descriptor_is_nonsense(ends, pipe):
    ours, peer = ends
    os.close(pipe[1])
    ours.socket.send(b'{"request": 1, "name": "x"}')
    assert list(peer.receive()) == []
    assert peer.closed


def test_a_peer_that_reads_nothing_is_not_waited_for(ends, pipe):
    ours, _ = ends
    with pytest.raises(OSError, match=r"unavailable|Too many"):
        for number in range(100_000):
            ours.send(number, "x", pipe[1])
    os.close(pipe[1])


def test_without_a_place_for_it_the_request_is_told_so(ends, pipe):
    ours, peer = ends
    ours.send(1, "x", pipe[1])
    os.close(pipe[1])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limit[1]))
    try:
        found = list(peer.receive())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    waiting = Deliveries()
    for each in found:
        waiting.put(each)
    with pytest.raises(OSError, match="Too many open files"):
        waiting.take(1, "x")
    assert let_go(pipe[0])
    assert not peer.closed


def test_what_waits_is_bounded_and_the_oldest_goes(ends, pipe, monkeypatch):
    monkeypatch.setattr(descriptors, "_WAITING", 2)
    ours, peer = ends
    waiting = Deliveries()
    for number in range(5):
        ours.send(number, "x", pipe[1])
    os.close(pipe[1])
    for each in peer.receive():
        waiting.put(each)
    assert len(waiting) == 2
    with pytest.raises(KeyError):
        waiting.take(2, "x")
    waiting.close()
    assert let_go(pipe[0])


def test_a_link_that_is_renewed_closes_what_its_predecessor_left(pipe):
    loop = Loop()
    link = Opened(loop, 1 << 20, lambda why: None)
    silent: Any = Silent()
    link.serve(silent)
    with link.opened(), link.beside as beside:
        DescriptorSocket(beside).send(1, "lease", pipe[1])
        loop.turn(1.0)  # taken in
        DescriptorSocket(beside).send(2, "lease", pipe[1])  # still under way
        os.close(pipe[1])
        assert not let_go(pipe[0])
        with link.opened(), link.beside:
            assert let_go(pipe[0])
    link.close()
    loop.close()


def test_what_came_with_a_request_that_does_not_take_it_is_closed(platform, pipe):
    platform.ready()
    platform.request("list", carried={"lease": pipe[1]})
    os.close(pipe[1])
    assert let_go(pipe[0])


def test_a_spawn_that_names_what_did_not_come_is_refused(platform):
    platform.ready()
    assert platform.spawn(inherit=["lease_fd", "operations_fd"])["error"]["code"] == "protocol"
    assert platform.request("list")["ok"]["instances"] == []


def test_what_is_kept_is_lent_to_one_orchestrator_after_the_other_until_the_instance_ends(platform, pipe):
    platform.ready()
    platform.spawn(keep=["operations"], carried_too={"operations": pipe[1]})
    os.close(pipe[1])
    platform.event("announced")
    for _ in range(2):
        assert platform.request("lend", instance=platform.last, name="operations") == {"id": platform.number, "ok": {}}
        [lent] = platform.descriptors.receive()
        assert (lent.request, lent.name) == (platform.number, "operations")
        os.write(lent.descriptor, b"x")
        os.close(lent.descriptor)
        assert os.read(pipe[0], 10) == b"x"
        platform.replace_orchestrator()
    assert platform.request("lend", instance=platform.last, name="other")["error"]["code"] == "not_found"
    assert ask(str(platform.folder / "d1.sock"))
    platform.request("stop", instance=platform.last, grace_ms=1000)
    platform.event("exited")
    until(lambda: let_go(pipe[0]))
