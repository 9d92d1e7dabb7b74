"""The laws of Discovery: a lease is the life of a record, and a view is never wrong for long.

`shared`: two parts from `make` meet, as two processes do. A copy of a reservation's descriptor stands for the process
that was given it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from bema.core.errors import Conflict
from bema.core.instance import Instance, State
from bema.core.naming import new_instance_id
from bema.parts.opening import unopenable
from bema.runtime.discovery.discovery import InstanceChange, Reservation, View, wait_for
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("discovery")


def instance(**more: Any) -> Instance:
    """An instance nobody else has."""
    return Instance(**{"id": new_instance_id(), "namespace": "demo", "component": "worker", **more})


async def until(view: View, *ids: int) -> None:
    """Wait until the view shows exactly these ids."""
    # By events of the view, not by sleeping: a law must hold on a slow machine.
    await wait_for(view, lambda found: [one.id for one in found] == sorted(ids))


@SUITE.law()
async def first_picture_is_complete(make: Make) -> None:
    """A view shows everything that was registered before it, at once."""
    discovery = await make()
    one = instance()
    await discovery.register(one)
    view = await discovery.view()
    assert [found.id for found in view.instances()] == [one.id]


@SUITE.law("shared")
async def every_first_picture_is_complete(make: Make) -> None:
    """A view shows at once what another registered before it, also where a view was open already."""
    there, here = await make(), await make()
    await here.view()
    for _ in range(3):
        one = instance()
        await there.register(one)
        assert one.id in [found.id for found in (await here.view()).instances()]


@SUITE.law()
async def record_is_kept_whole(make: Make) -> None:
    """What is shown is what was registered, but for the fence."""
    discovery = await make()
    one = instance(
        addresses={"rpc": ("unix:/run/x.sock",)}, data={"a": [1]}, state=State.DRAINING, token="secret", version="v2"
    )
    lease = await discovery.register(one)
    (found,) = (await discovery.view()).instances()
    assert found == msgspec.structs.replace(one, fence=lease.fence)


@SUITE.law()
async def views_follow(make: Make) -> None:
    """A view made before a registration shows it, and shows its end."""
    discovery = await make()
    view = await discovery.view()
    assert view.instances() == ()
    one, two = instance(), instance()
    lease = await discovery.register(one)
    await until(view, one.id)
    await discovery.register(two)
    await until(view, one.id, two.id)
    await lease.release()
    await until(view, two.id)


@SUITE.law()
async def views_are_filtered(make: Make) -> None:
    """A view of a component shows that component only."""
    discovery = await make()
    views = [await discovery.view("demo", "worker"), await discovery.view("demo"), await discovery.view()]
    found = [instance(), instance(component="other"), instance(namespace="else")]
    for one in found:
        await discovery.register(one)
    for number, view in enumerate(views, 1):
        await until(view, *(one.id for one in found[:number]))


@SUITE.law()
async def order_is_of_ids(make: Make) -> None:
    """Instances come in order of id, and as the same tuple until something changes."""
    discovery = await make()
    for _ in range(5):
        await discovery.register(instance())
    view = await discovery.view()
    ids = [one.id for one in view.instances()]
    assert ids == sorted(ids)
    assert view.instances() is view.instances()


@SUITE.law()
async def update_replaces(make: Make) -> None:
    """An update replaces the record under the same lease."""
    discovery = await make()
    one = instance()
    lease = await discovery.register(one)
    view = await discovery.view()
    await lease.update(msgspec.structs.replace(one, state=State.DRAINING))
    (found,) = await wait_for(view, lambda seen: bool(seen) and seen[0].state is State.DRAINING)
    assert (found.id, found.fence) == (one.id, lease.fence)


@SUITE.law()
async def release_twice(make: Make) -> None:
    """Releasing twice is the same as once."""
    discovery = await make()
    lease = await discovery.register(instance())
    await lease.release()
    await lease.release()
    assert (await discovery.view()).instances() == ()


@SUITE.law()
async def held_ids_conflict(make: Make) -> None:
    """An id that is held is refused with a Conflict, and its record stays."""
    discovery = await make()
    one = instance()
    await discovery.register(one)
    try:
        await discovery.register(one)
    except Conflict:
        assert [found.id for found in (await discovery.view()).instances()] == [one.id]
    else:
        raise AssertionError("the second registration was accepted")


@SUITE.law()
async def fences_grow(make: Make) -> None:
    """Each lease has a greater fence than the one before it."""
    discovery = await make()
    fences = [(await discovery.register(instance())).fence for _ in range(4)]
    assert fences == sorted(set(fences))
    assert fences[0] > 0


@SUITE.law()
async def subscribers_hear(make: Make) -> None:
    """A subscriber is called after each change until it has ended its subscription."""
    discovery = await make()
    view = await discovery.view()
    heard = asyncio.Event()
    stop = view.subscribe(heard.set)
    lease = await discovery.register(instance())
    await heard.wait()
    stop()
    stop()
    heard.clear()
    await lease.release()
    await until(view)
    assert not heard.is_set()


@SUITE.law()
async def followers_hear_what_changed(make: Make) -> None:
    """Who follows is told of each instance that came, differs or went, and of no other; so an index stays true."""
    discovery = await make()
    there = instance()
    await discovery.register(there)
    view = await discovery.view()
    index = {one.id: one for one in view.instances()}
    heard: list[int] = []

    def told(changes: Sequence[InstanceChange]) -> None:
        for change in changes:
            before, after = change.before, change.after
            one = after or before
            assert one is not None
            assert index.get(one.id) == before
            heard.append(one.id)
            if after is None:
                del index[one.id]
            else:
                index[one.id] = after
        assert tuple(index[known] for known in sorted(index)) == view.instances()

    stop = view.follow(told)
    new = instance()
    lease = await discovery.register(new)
    await until(view, there.id, new.id)
    await lease.update(msgspec.structs.replace(new, state=State.DRAINING))
    await wait_for(view, lambda seen: any(one.state is State.DRAINING for one in seen))
    await lease.release()
    await until(view, there.id)
    assert set(heard) == {new.id}
    assert list(index) == [there.id]
    stop()
    stop()
    await discovery.register(other := instance())
    await until(view, there.id, other.id)
    assert set(heard) == {new.id}


@SUITE.law()
async def closed_views_are_left_alone(make: Make) -> None:
    """Closing a view ends it and no other."""
    discovery = await make()
    closed, kept = await discovery.view(), await discovery.view()
    await closed.close()
    one = instance()
    await discovery.register(one)
    await until(kept, one.id)


@SUITE.law()
async def reserved_is_shown_when_said(make: Make) -> None:
    """A reservation shows nothing before its first update, then what it was told, until it is released."""
    discovery = await make()
    view = await discovery.view()
    one, other = instance(), instance()
    reservation = await discovery.reserve(one.id)
    await discovery.register(other)
    await until(view, other.id)
    before = reservation.shown
    assert before is None
    await reservation.update(one)
    await until(view, one.id, other.id)
    assert reservation.shown == msgspec.structs.replace(one, fence=reservation.fence)
    await reservation.release()
    await reservation.release()
    await until(view, other.id)


@SUITE.law()
async def reserved_ids_conflict(make: Make) -> None:
    """An id that is reserved is refused to others, and one that is held cannot be reserved."""
    discovery = await make()
    reserved, held = instance(), instance()
    await discovery.reserve(reserved.id)
    await discovery.register(held)
    for again in (discovery.register(reserved), discovery.reserve(reserved.id), discovery.reserve(held.id)):
        try:
            await again
        except Conflict:
            continue
        raise AssertionError("two hold one id")


@SUITE.law()
async def reservations_are_fenced(make: Make) -> None:
    """Each reservation has a greater fence than the one before it."""
    discovery = await make()
    fences = [(await discovery.reserve(new_instance_id())).fence for _ in range(4)]
    assert fences == sorted(set(fences))
    assert fences[0] > 0


@SUITE.law()
async def handed_over_lives_on(make: Make) -> None:
    """What was handed over is held by its process: who reserved it shows and updates it until that has gone."""
    discovery = await make()
    view = await discovery.view()
    one = instance()
    reservation = await discovery.reserve(one.id)
    process = process_with(reservation)
    await reservation.hand_over()
    ours = reservation.descriptor
    assert ours is None
    await reservation.update(one)
    await until(view, one.id)
    await reservation.update(msgspec.structs.replace(one, ready=False))
    await wait_for(view, lambda seen: [found.ready for found in seen] == [False])
    if process is None:
        await reservation.release()
    else:
        os.close(process)
    await until(view)
    await reservation.release()


def process_with(reservation: Reservation) -> int | None:
    """What a process that was given the reservation holds; None where the discovery holds it."""
    return None if reservation.descriptor is None else os.dup(reservation.descriptor)


@SUITE.law()
async def adopted_is_ours_to_say(make: Make) -> None:
    """Who adopts what was reserved knows what is shown, replaces it, and takes it away."""
    discovery = await make()
    view = await discovery.view()
    one = instance()
    reservation = await discovery.reserve(one.id)
    process = process_with(reservation)
    await reservation.hand_over()
    await reservation.update(one)
    adopted = await discovery.adopt(one.id)
    assert adopted.shown == reservation.shown
    assert adopted.fence == reservation.fence
    await adopted.update(msgspec.structs.replace(one, state=State.DRAINING))
    await wait_for(view, lambda seen: [found.state for found in seen] == [State.DRAINING])
    await adopted.release()
    if process is not None:
        os.close(process)
    await until(view)


@SUITE.law()
async def adopting_nobody_shows_nothing(make: Make) -> None:
    """What nobody holds is not shown, whoever adopts it."""
    discovery = await make()
    view = await discovery.view()
    one, other = instance(), instance()
    adopted = await discovery.adopt(one.id)
    await adopted.update(one)
    await discovery.register(other)
    await until(view, other.id)
    await adopted.release()


@SUITE.law("shared")
async def handed_over_outlives_its_discovery(make: Make) -> None:
    """What was handed over stays when the discovery that reserved it closes, and another takes charge of it."""
    one, other = await make(), await make()
    view = await other.view()
    first = instance()
    reservation = await one.reserve(first.id)
    process = process_with(reservation)
    await reservation.hand_over()
    await reservation.update(first)
    await until(view, first.id)
    await one.close()
    adopted = await other.adopt(first.id)
    await adopted.update(msgspec.structs.replace(first, stalled=True))
    await wait_for(view, lambda seen: [found.stalled for found in seen] == [True])
    await adopted.release()
    if process is not None:
        os.close(process)
    await until(view)


@SUITE.law("shared")
async def sharing_is_said(make: Make) -> None:
    """A discovery in which others meet says so."""
    assert (await make()).spans_processes


@SUITE.law("shared")
async def two_meet(make: Make) -> None:
    """What one registers the other shows; when one closes, what it held is gone."""
    one, other = await make(), await make()
    view = await other.view()
    first, second = instance(), instance()
    await one.register(first)
    await other.register(second)
    await until(view, first.id, second.id)
    await one.close()
    await until(view, second.id)


@SUITE.law("shared")
async def ids_conflict_across(make: Make) -> None:
    """An id that another holds is refused, and fences grow across both."""
    one, other = await make(), await make()
    first = instance()
    lease = await one.register(first)
    try:
        await other.register(first)
    except Conflict:
        assert (await other.register(instance())).fence > lease.fence
    else:
        raise AssertionError("two hold one id")


@SUITE.law()
async def it_is_opened_with_settings(make: Make) -> None:
    """Its class has `open(settings)`, or is made without arguments: else no program could take it by its name."""
    made = await make()
    assert unopenable(type(made), "plain") == ""
