"""The handshake: one table, run from both ends, with the module protocol's shapes."""

import itertools

import msgspec
import pytest

from bema.core.errors import ProtocolError, Refused
from bema.core.instance import MOVES, EndpointInfo, State
from bema.core.spec import Shape
from bema.wire.module.handshake import (
    Announce,
    EndpointAnnounce,
    Handshake,
    HandshakeSide,
    Init,
    InitEntry,
    Protocol,
    Stop,
    Word,
    agree,
    default_init,
    encode,
    init_of,
    read_init,
)

INIT = Init(orchestrator_api="http://127.0.0.1:9900", module_id="billing-1", env={}, listen="127.0.0.1:4102")
ANNOUNCE = Announce(listen="127.0.0.1:4102", endpoints=[EndpointAnnounce("/health", ["GET"])])


def test_init_without_ours_is_the_reference_shape():
    assert encode(INIT) == (
        b'{"orchestrator_api":"http://127.0.0.1:9900","module_id":"billing-1","env":{},'
        b'"listen":"127.0.0.1:4102","security_level":"None"}\n'
    )


def test_announce_and_stop_without_ours_are_the_reference_shapes():
    assert (
        encode(ANNOUNCE)
        == b'{"op":"announce","listen":"127.0.0.1:4102","endpoints":[{"path":"/health","methods":["GET"]}]}\n'
    )
    assert encode(Stop()) == b'{"op":"shutdown"}\n'


def test_our_fields_travel_beside_the_reference():
    init = Init(
        orchestrator_api="",
        module_id="m",
        env={"A": "1"},
        listen="unix:/run/x.sock",
        protocol=Protocol(1, 2),
        listen_fd=3,
        lease_fd=4,
        entry=InitEntry("service", "Worker"),
        settings={"port": 8700},
    )
    assert init == read_init(encode(init)) == init_of(msgspec.to_builtins(init))
    announce = Announce(
        listen="unix:/run/x.sock",
        endpoints=[],
        addresses={"rpc": ["unix:/run/x.sock"]},
        operations=[EndpointInfo("generate", Shape.STREAM)],
        phases={"import": 12},
    )
    assert announce == msgspec.json.decode(encode(announce), type=Announce)


def test_the_first_line_may_bear_an_op_and_fields_nobody_knows():
    line = b'{"op":"init","orchestrator_api":"","module_id":"m","env":{},"listen":"/x.sock","debug_mode":false}'
    assert read_init(line).listen == "/x.sock"


@pytest.mark.parametrize("line", [b"", b"null", b"{}", b'{"module_id":"m"}', b"\xff\xfe", b'{"env":'])
def test_a_first_line_that_is_no_init_is_a_protocol_error(line):
    with pytest.raises(ProtocolError, match="not an Init"):
        read_init(line)


def test_both_ends_go_through_the_same_states():
    inside, outside = Handshake(HandshakeSide.INSIDE), Handshake(HandshakeSide.OUTSIDE)
    for speaker, hearer, word, state in (
        (outside, inside, INIT, State.STARTING),
        (inside, outside, ANNOUNCE, State.SERVING),
        (outside, inside, Stop(reason="deploy"), State.DRAINING),
    ):
        assert speaker.say(word) == encode(word)
        assert hearer.hear(word) is speaker.state is state
    assert inside.ended(clean=True) is State.GONE
    assert outside.ended(clean=False) is State.FAILED


def test_nobody_says_the_others_words():
    with pytest.raises(ProtocolError, match="Announce is not the outside's to say"):
        Handshake(HandshakeSide.OUTSIDE).say(ANNOUNCE)
    with pytest.raises(ProtocolError, match="Stop is not the inside's to say"):
        Handshake(HandshakeSide.OUTSIDE).hear(Stop())


def test_any_order_of_words_either_follows_the_table_or_fails():
    leads: dict[type, State] = {INIT.__class__: State.STARTING, Announce: State.SERVING, Stop: State.DRAINING}
    said: tuple[Word, ...] = (INIT, ANNOUNCE, Stop())
    for words in itertools.product(said, repeat=4):
        end = Handshake(HandshakeSide.OUTSIDE)
        for word in words:
            act = end.hear if isinstance(word, Announce) else end.say
            before, to = end.state, leads[type(word)]
            if to in MOVES[before]:
                act(word)
                assert end.state is to
            else:
                with pytest.raises(ProtocolError, match="cannot go from"):
                    act(word)
                assert end.state is before


def test_the_highest_version_both_speak_is_chosen():
    assert agree(Protocol(1, 5), Protocol(2, 3)) == 3
    assert agree(None) is None
    with pytest.raises(Refused, match="2-3"):
        agree(Protocol(2, 3), Protocol(1, 1))


def test_started_by_hand_there_is_a_default_init():
    assert default_init("demo.worker").env == {}
    assert default_init("demo.worker").listen_fd is None
