"""The recorded conversation holds both: the runner that speaks it, and wire/handshake that it never imports."""

import json
from pathlib import Path

import msgspec

from bema.wire.module import handshake
from bema.wire.module.handshake import Announce, Handshake, HandshakeSide, Stop

CONVERSATION = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "runner" / "conversation.jsonl").read_text().splitlines()
]


def filled(value, known):
    """The recorded line with its capitals replaced by what is so in this run."""
    if isinstance(value, dict):
        return {key: filled(inner, known) for key, inner in value.items()}
    return known.get(value, value) if isinstance(value, str) else value


def test_the_runner_holds_its_side(launch):
    running = launch("async def app(scope, receive, send): ...\n")
    known = {
        "SOCKET": running.path,
        "LISTENER": running.listener.fileno(),
        "LEASE": running.lease,
        "SCRIPT": str(running.script),
    }
    for turn in CONVERSATION:
        line = filled(turn["line"], known)
        if turn["from"] == "launcher":
            running.say({**line, "platform": running.init["platform"]} if "script" in line else line)
        else:
            heard = running.hear()
            assert set(heard["phases"]) == {"interpreter", "init", "import", "adapt", "startup"}
            assert {**heard, "phases": "PHASES"} == line
    assert running.ended()[0] == 0


def test_the_handshake_reads_it_the_same_way():
    known = {"SOCKET": "/s", "LISTENER": 3, "LEASE": 4, "SCRIPT": "/x.py"}
    phases = {"import": 1}
    outside = Handshake(HandshakeSide.OUTSIDE)
    first, answer, *_, last = (filled(turn["line"], {**known, "PHASES": phases}) for turn in CONVERSATION)
    outside.say(handshake.read_init(json.dumps(first)))
    announce = msgspec.json.decode(json.dumps(answer), type=Announce)
    assert outside.hear(announce) == "serving"
    assert json.loads(handshake.encode(announce)) == answer
    stop = msgspec.json.decode(json.dumps(last), type=Stop)
    outside.say(stop)
    assert outside.state == "draining"
    assert json.loads(handshake.encode(stop)) == last
