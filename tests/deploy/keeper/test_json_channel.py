import json
import socket

import pytest

from bema.deploy.keeper.json_channel import JsonChannel

# Python reads these, and whoever is told of them does not
UNREADABLE = [b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":"\\ud800"}', b'{"\\ud800":1}']


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield JsonChannel(ours, line_limit=100, send_limit=1 << 20), theirs
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


@pytest.mark.parametrize("line", [b"x" * 101, b"nonsense", b"[]", b"[" * 99, b"\xff", *UNREADABLE])
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


def test_what_is_nested_so_deeply_that_nothing_fits_around_it_is_no_message():
    ours, peer = socket.socketpair()
    conduit = JsonChannel(ours, line_limit=1 << 20, send_limit=1 << 24)
    for depth in (*range(700, 1100), 100_000):
        peer.sendall(b'{"a":' + b"[" * depth + b"]" * depth + b"}\n")
        heard = conduit.receive()
        while not (heard.messages or heard.refused):
            heard = conduit.receive()
        for message in heard.messages:
            json.dumps({"event": "line", "line": message})
    assert heard.refused
    ours.close()
    peer.close()
