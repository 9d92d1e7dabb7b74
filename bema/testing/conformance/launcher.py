"""The laws of Launcher: every start ends in exactly one Exited, and what runs is what it says runs.

`make` gives a `Trial`: the launcher, and what to start so that it serves, or so that it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bema.core.instance import State
from bema.core.naming import new_instance_id
from bema.deploy.launch.launcher import Announced, Event, Exited, Launcher, Reported
from bema.deploy.launch.workload import Workload
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("launcher")


class LauncherTrial(NamedTuple):
    """`serving` and `crashing` give a workload of a deployment of its own; a crashing one ends by itself with code 3."""

    launcher: Launcher
    serving: Callable[[], Workload]
    crashing: Callable[[], Workload]


async def event_of(launcher: Launcher, instance: int) -> Event:
    """The next event of one instance that is neither a line it said nor how it serves."""
    while True:
        event = await launcher.next_event()
        # Reports come when they come, and those of other instances in between.
        if event.instance == instance and not isinstance(event, Reported):
            return event


async def running(launcher: Launcher) -> dict[int, State]:
    return {one.instance: one.state for one in await launcher.poll()}


@SUITE.law()
async def start_returns_before_it_serves(make: Make) -> None:
    """A start returns in state STARTING, with what was asked for; Announced follows."""
    trial = await make()
    workload, instance = trial.serving(), new_instance_id()
    one = await trial.launcher.start(workload, instance)
    assert one.state is State.STARTING
    assert (one.instance, one.deployment, one.name, one.version) == (
        *(instance, workload.deployment, workload.name, workload.version),
    )
    # Known before it serves: requests may wait in its listener from now on.
    assert one.listen
    assert isinstance(await event_of(trial.launcher, one.instance), Announced)
    assert await running(trial.launcher) == {one.instance: State.SERVING}
    await end(trial.launcher, one.instance)


async def end(launcher: Launcher, instance: int) -> Exited:
    await launcher.stop(instance, 5.0, "the trial is over")
    event = await event_of(launcher, instance)
    assert isinstance(event, Exited)
    return event


@SUITE.law()
async def stopped_is_stopped(make: Make) -> None:
    """A stop ends in one Exited with the cause "stopped", and the instance runs no more."""
    trial = await make()
    instance = new_instance_id()
    await trial.launcher.start(trial.serving(), instance)
    assert isinstance(await event_of(trial.launcher, instance), Announced)
    assert (await end(trial.launcher, instance)).cause == "stopped"
    assert await running(trial.launcher) == {}


@SUITE.law()
async def crash_is_told_with_its_code(make: Make) -> None:
    """A process that ends by itself is Exited with its code and the cause "exited"."""
    trial = await make()
    instance = new_instance_id()
    await trial.launcher.start(trial.crashing(), instance)
    event = await event_of(trial.launcher, instance)
    assert isinstance(event, Exited)
    assert (event.cause, event.code) == ("exited", 3)
    assert await running(trial.launcher) == {}


@SUITE.law()
async def stopping_nobody_is_nothing(make: Make) -> None:
    """Stopping what does not run, and forgetting what is not known, do nothing."""
    trial = await make()
    await trial.launcher.stop(new_instance_id(), 1.0, "nobody")
    await trial.launcher.forget("00000000-0000-4000-8000-000000000000")
    assert await running(trial.launcher) == {}


@SUITE.law()
async def instances_are_apart(make: Make) -> None:
    """Two instances of two deployments live and end apart."""
    trial = await make()
    one, other = new_instance_id(), new_instance_id()
    await trial.launcher.start(trial.serving(), one)
    assert isinstance(await event_of(trial.launcher, one), Announced)
    await trial.launcher.start(trial.serving(), other)
    assert isinstance(await event_of(trial.launcher, other), Announced)
    await end(trial.launcher, one)
    assert await running(trial.launcher) == {other: State.SERVING}
    await end(trial.launcher, other)
