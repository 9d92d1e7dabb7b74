"""The laws of Picker: one of the candidates, at once, whatever the candidates were the last time.

`spreading`: among equals nobody is left out. What refuses to choose (a picker for calls that name their instance) may
say so by `Invalid`.
"""

from __future__ import annotations

import itertools

from bema.core.errors import Invalid
from bema.core.instance import Instance
from bema.core.naming import new_instance_id
from bema.parts.opening import unopenable
from bema.runtime.rpc.picker import OutgoingCall
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("picker")
CALL = OutgoingCall("demo.worker.generate", {"tenant": "a"}, 1)
TURNS = 64  # per candidate: nobody is missed by chance more often than once in 10^24


def instances(count: int) -> tuple[Instance, ...]:
    return tuple(Instance(id=new_instance_id(), namespace="demo", component="worker") for _ in range(count))


def idle(instance: Instance) -> int:
    return 0


@SUITE.law()
async def the_only_one_is_taken(make: Make) -> None:
    """A single candidate is picked, busy or not."""
    picker = await make()
    for count in (0, 1, 1000):
        (only,) = instances(1)
        assert picker.pick((only,), lambda instance, load=count: load, CALL) is only


@SUITE.law()
async def one_of_the_candidates(make: Make) -> None:
    """What is picked is one of the candidates, and they are left as they were."""
    picker = await make()
    for count in (2, 3, 10):
        candidates = list(instances(count))
        before = tuple(candidates)
        try:
            found = picker.pick(candidates, idle, CALL)
        except Invalid:
            continue
        assert any(found is candidate for candidate in before)
        assert tuple(candidates) == before


@SUITE.law()
async def candidates_come_and_go(make: Make) -> None:
    """Every pick is among the candidates of that pick, as instances come and go."""
    picker, all_of_them = await make(), instances(6)
    for turn in range(TURNS):
        candidates = all_of_them[turn % 5 : turn % 5 + 1 + turn % 3]
        try:
            assert picker.pick(candidates, idle, CALL) in candidates
        except Invalid:
            # With one candidate there is nothing to choose, so nothing to refuse.
            assert len(candidates) > 1


@SUITE.law()
async def pickers_share_nothing(make: Make) -> None:
    """Two pickers do not disturb each other."""
    one, other = await make(), await make()
    (mine,), (theirs,) = instances(1), instances(1)
    assert one.pick((mine,), idle, CALL) is mine
    assert other.pick((theirs,), idle, CALL) is theirs
    assert one.pick((mine,), idle, CALL) is mine


@SUITE.law("spreading")
async def equals_are_treated_alike(make: Make) -> None:
    """Among equally loaded candidates everyone is picked in the end."""
    picker, candidates = await make(), instances(4)
    found = {picker.pick(candidates, idle, CALL).id for _ in itertools.repeat(None, TURNS * len(candidates))}
    assert found == {candidate.id for candidate in candidates}


@SUITE.law()
async def it_is_opened_with_settings(make: Make) -> None:
    """Its class has `open(settings)`, or is made without arguments: else no program could take it by its name."""
    made = await make()
    assert unopenable(type(made), "plain") == ""


@SUITE.law()
async def any_call_is_picked_for(make: Make) -> None:
    """A picker may go by the call; one without what it looks for is picked for, or refused by `Invalid`, and none is changed."""
    picker, candidates = await make(), instances(3)
    for number, metadata in enumerate(
        ({}, {"tenant": "a"}, {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
    ):
        before = dict(metadata)
        call = OutgoingCall("demo.worker.generate", metadata, number)
        try:
            assert picker.pick(candidates, idle, call) in candidates
        except Invalid:
            continue
        assert metadata == before
        assert call.route == "demo.worker.generate"
