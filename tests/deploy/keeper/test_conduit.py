import socket

import pytest

from bema.deploy.keeper.conduit import Conduit


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield Conduit(ours, line_limit=100, send_limit=1 << 20), theirs
    ours.close()
    theirs.close()


def test_messages_come_whole_however_they_arrive(ends):
    conduit, peer = ends
    peer.sendall(b'{"a":')
    assert conduit.receive() == ([], [])
    peer.sendall(b'1}\n\n{"b":2}\n')
    assert conduit.receive().messages == [{"a": 1}, {"b": 2}]
    assert conduit.receive() == ([], [])
    assert not conduit.closed


@pytest.mark.parametrize("line", [b"x" * 101, b"nonsense", b"[]", b"[" * 99, b"\xff"])
def test_a_line_that_is_no_message_is_one_sentence(ends, line):
    conduit, peer = ends
    peer.sendall(line + b'\n{"a":1}\n')
    heard = conduit.receive()
    assert (len(heard.refused), heard.messages) == (1, [{"a": 1}])


def test_what_the_peer_does_not_take_waits_and_too_much_closes(ends):
    conduit, _ = ends
    for _ in range(10):
        conduit.send({"x": "y" * 100_000})
    assert 0 < conduit.unsent <= 1 << 20
    assert not conduit.closed
    for _ in range(10):
        conduit.send({"x": "y" * 100_000})
    assert conduit.closed


def test_a_peer_that_is_gone_closes_it(ends):
    conduit, peer = ends
    peer.close()
    conduit.send({"a": 1})
    assert conduit.receive() == ([], [])
    assert conduit.closed
