"""Making instances equal deployments: look, plan, apply, and look again whenever something happened.

Laws: `plan` decides, here it is only applied; every start is in the restart history, durably, before the launcher is asked,
and every end before the launcher is asked for its next event; all changes of a deployment go through `change`, one at a
time; what takes long (building, starting) is an owned task and never holds up the look at others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator

from bema.core.errors import BemaError, Disconnected, NotFound, Refused
from bema.core.instance import State
from bema.core.naming import new_instance_id
from bema.deploy.build.pythons import own_python
from bema.deploy.launch.launcher import Announced, Event, Exited, Reported, RunningInstance
from bema.deploy.model import plan as plans
from bema.deploy.model.deployment import Build, Rollout, Seen, VersionStatus
from bema.deploy.model.restarts import SECOND, begun, ended, served
from bema.deploy.orchestrator.build import build, is_there, start_of
from bema.deploy.orchestrator.garbage import left_over, sweep
from bema.deploy.orchestrator.parts import Parts
from bema.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

Change = Callable[[VersionStatus], VersionStatus]
_QUIET = SECOND // 2
"""How long an instance must be missing, with no news of any, before its end counts as unseen."""
_AGAIN = 1.0
"""Seconds until something is tried again that the machine did not allow."""


class Reconciler:
    """`changed` is set, and replaced, whenever a state may have changed."""

    def __init__(self, parts: Parts) -> None:
        self.changed = asyncio.Event()
        self._parts = parts
        self._tasks = Tasks("reconciler")
        self._turn = asyncio.Event()
        self._changing = asyncio.Lock()
        self._running: dict[int, RunningInstance] = {}
        self._shown: dict[str, RunningInstance] | None = None  # by deployment; made when it is asked for
        self._starting: dict[str, plans.ActualReplica] = {}
        self._building: dict[str, asyncio.Task[None]] = {}
        self._forgetting: set[str] = set()
        self._leaving: set[str] = set()
        self._woken: set[str] = set(parts.store.rollouts())
        self._missing: dict[int, int] = {}
        self._builds = asyncio.Semaphore(parts.limits.builds)
        self._starts = asyncio.Semaphore(parts.limits.starts)

    async def adopt(self) -> None:
        """See what runs. Before the first time nothing is known, and what serves would be told of as starting."""
        self._running = {running.instance: running for running in await self._parts.launcher.running()}
        self._shown = None

    async def run(self) -> None:
        """Until cancelled; ends with the error when the launcher is gone."""
        self._leaving |= await asyncio.to_thread(left_over, self._parts)
        idle = not self._running
        async with self._tasks:
            self._tasks.start(self._prepare(idle), "platform layer")
            self._tasks.start(self._afresh(), "failed builds")
            happenings = asyncio.ensure_future(self._listen())
            turns = asyncio.ensure_future(self._turns())
            try:
                await asyncio.wait((happenings, turns), return_when=asyncio.FIRST_COMPLETED)
                for ended_one in (happenings, turns):
                    if ended_one.done():
                        ended_one.result()
            finally:
                happenings.cancel()
                turns.cancel()
                await asyncio.gather(happenings, turns, return_exceptions=True)

    async def _prepare(self, idle: bool) -> None:
        """What no start should wait for; what starts meanwhile uses nothing that could be swept."""
        await self._parts.layers.layer(own_python())
        if idle:
            await asyncio.to_thread(sweep, self._parts)

    async def _afresh(self) -> None:
        """What failed to build before we came is tried once more, however short ago that was."""
        for id in [rollout.id for rollout in self._parts.store.rollouts().values() if rollout.status.build.again]:
            await self.change(id, VersionStatus.afresh)
        self.wake()

    # what others ask

    def wake(self, deployment: str = "") -> None:
        """Look again; with a deployment, somebody asks for it."""
        if deployment:
            self._woken.add(deployment)
        self._turn.set()

    def leave(self, deployment: str) -> None:
        """A deployment was deleted: stop what is built and what runs of it, then forget it."""
        self._leaving.add(deployment)
        if (building := self._building.pop(deployment, None)) is not None:
            building.cancel()
        self._turn.set()

    def instance_of(self, deployment: str) -> Seen | None:
        if self._shown is None:
            self._shown = {}
            for running in sorted(self._running.values(), key=lambda r: r.state is not State.SERVING):
                self._shown.setdefault(running.deployment, running)
        best = self._shown.get(deployment)
        return None if best is None else best.seen()

    def instances(self) -> int:
        return len(self._running)

    async def change(self, deployment: str, how: Change) -> None:
        """Replace the status of a deployment's version by what `how` makes of it, durably; nothing if it is gone."""
        while True:
            try:
                async with self._changing:
                    now = self._parts.store.rollouts().get(deployment)
                    if now is not None and (then := how(now.status)) is not now.status:
                        await self._parts.store.record(deployment, now.version.label, then)
                break
            except NotFound:
                return
            except Refused as error:
                if error.code == "state_failed":
                    raise
                logger.error("%s; trying again", error.message)
                await asyncio.sleep(_AGAIN)
        self._notify()

    # what happens

    async def _listen(self) -> None:
        while True:
            event = await self._parts.launcher.next_event()
            if isinstance(event, Reported):
                self._reported(event)
            else:
                await self._happened(event)

    async def _happened(self, event: Event) -> None:
        self._shown = None
        now, policy = self._parts.clock.now(), self._parts.policy
        instance, owner = event.instance, self._owner(event.instance)
        # ends are told one after the other: while they come, one that is missing may be next
        self._missing.clear()
        if isinstance(event, Announced):
            if (running := self._running.get(instance)) is not None:
                self._running[instance] = running.after(event)
            await self.change(owner, lambda s: s.tried(served(s.attempts, instance, now), now))
        elif isinstance(event, Exited):
            self._running.pop(instance, None)
            how = {
                "cause": event.cause,
                "code": event.code,
                "signal": event.signal,
                "message": event.message,
                "log": tuple(str(r.get("event", "")) for r in event.tail if r.get("stream") != "bema"),
            }
            await self.change(owner, lambda s: s.tried(ended(s.attempts, instance, now, policy, **how), now))
        self.wake()

    def _reported(self, event: Reported) -> None:
        """Nothing is to be done about it, but somebody may wait for it."""
        if (running := self._running.get(event.instance)) is not None:
            self._running[event.instance] = running.after(event)
            self._shown = None
            self._notify()

    def _owner(self, instance: int) -> str:
        if (running := self._running.get(instance)) is not None:
            return running.deployment
        rollouts = self._parts.store.rollouts().values()
        return next((r.id for r in rollouts for a in r.status.attempts if a.instance == instance), "")

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    # look, plan, apply

    async def _turns(self) -> None:
        while True:
            self._turn.clear()
            wait = await self._look()
            # not wait_for: before Python 3.12 it loses a cancellation that comes together with what it waits for
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._turn.wait()

    async def _look(self) -> float | None:
        """One turn; gives the seconds until the next is due by itself."""
        await self.adopt()
        # nothing is awaited between this picture and the plan: what the launcher knows and what is being started agree
        self._woken -= {running.deployment for running in self._running.values()}
        actions = plans.plan(
            self._parts.store.rollouts().values(),
            self._actual(),
            self._parts.clock.now(),
            self._parts.policy,
            woken=frozenset(self._woken),
            leaving=frozenset(self._leaving - self._forgetting),
        )
        waits = [await self._apply(action) for action in actions]
        self._notify()
        return min((wait for wait in waits if wait is not None), default=None)

    def _actual(self) -> Iterator[plans.ActualReplica]:
        for r in self._running.values():
            yield plans.ActualReplica(r.instance, r.deployment, r.version, r.state, r.since)
        yield from (new for new in self._starting.values() if new.instance not in self._running)

    async def _apply(self, action: plans.Action) -> float | None:
        """Carry an action out or set it going; gives when to look again, where that is known."""
        match action:
            case plans.Wait(_, after):
                return after / SECOND
            case plans.StartBuild(id) if id not in self._building:
                self._woken.discard(id)
                self._building[id] = self._tasks.start(self._build(id), f"build {id}")
            case plans.StartReplica(id):
                self._woken.discard(id)
                version = self._parts.store.rollouts()[id].version.label
                new = plans.ActualReplica(new_instance_id(), id, version, State.NEW, self._parts.clock.now())
                self._starting[id] = new
                self._tasks.start(self._start(id, new.instance), f"start {id}")
            case plans.StopReplica(instance, reason):
                await self._parts.launcher.stop(instance, self._parts.limits.stop, reason)
            case plans.Lost(id, instance):
                return await self._lost(id, instance)
            case plans.Forget(id):
                self._forgetting.add(id)
                self._tasks.start(self._forget(id), f"forget {id}")
        return None

    async def _build(self, id: str) -> None:
        try:
            async with self._builds:
                rollout = self._parts.store.rollouts().get(id)
                if rollout is not None:
                    made = await build(rollout, self._parts)
                    await self.change(id, lambda s: s.built(made, self._parts.clock.now()))
        finally:
            self._building.pop(id, None)
            self.wake()

    async def _start(self, id: str, instance: int) -> None:
        try:
            async with self._starts:
                rollout = self._parts.store.rollouts().get(id)
                if rollout is None:
                    return
                # somebody cleared the environments, or the interpreter was upgraded away
                if not await is_there(rollout):
                    again = Build(lock=rollout.status.build.lock)
                    await self.change(id, lambda s: s.built(again, self._parts.clock.now()))
                    return
                now = self._parts.clock.now()
                # written first: a start that nobody remembers could be made twice
                await self.change(id, lambda s: s.tried(begun(s.attempts, instance, now), now))
                await self._launch(rollout, instance)
        finally:
            del self._starting[id]
            self.wake()

    async def _launch(self, rollout: Rollout, instance: int) -> None:
        try:
            running = await self._parts.launcher.start(await start_of(rollout, instance, self._parts))
        except Disconnected:
            return  # with its keeper went whatever was started
        except (BemaError, OSError) as error:
            # a keeper that drains starts nothing more: that is no failure of the script
            cause = "stopped" if isinstance(error, BemaError) and error.code == "unavailable" else "spawn"
            now, policy = self._parts.clock.now(), self._parts.policy
            how = {"cause": cause, "message": str(error)}
            await self.change(rollout.id, lambda s: s.tried(ended(s.attempts, instance, now, policy, **how), now))
        else:
            self._running.setdefault(instance, running)
            self._shown = None

    async def _lost(self, id: str, instance: int) -> float | None:
        now, policy = self._parts.clock.now(), self._parts.policy
        since = self._missing.setdefault(instance, now)
        if 0 <= now - since < _QUIET:
            return (since + _QUIET - now) / SECOND
        del self._missing[instance]
        await self.change(id, lambda s: s.tried(ended(s.attempts, instance, now, policy, cause="lost"), now))
        self.wake()
        return None

    async def _forget(self, id: str) -> None:
        try:
            await self._parts.launcher.forget(id)
            for folder in (self._parts.logs(id), self._parts.home(id)):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            self._leaving.discard(id)
        finally:
            self._forgetting.discard(id)
