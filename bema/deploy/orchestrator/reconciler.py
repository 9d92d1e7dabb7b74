"""Making instances equal deployments: look, plan, apply, and look again whenever something happened.

Laws: `plan` decides, here it is only applied; every start is in the restart history, durably, before the launcher is asked,
and every end before the launcher is asked for its next event, but on a disk that is full; all changes of a deployment go through `change`, one at a
time; what takes long (building, starting) is an owned task and never holds up the look at others. An event costs a look at
the deployment that it is about; now and then all are looked at, so that one that was lost costs a while and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Container

import msgspec

from bema.core.errors import BemaError, Disconnected, NotFound, Refused
from bema.core.instance import State, Terms
from bema.core.naming import new_instance_id
from bema.deploy.build.pythons import own_python
from bema.deploy.launch.launcher import Announced, Exited, Reported
from bema.deploy.model import plan as plans
from bema.deploy.model.deployment import Build, Deployment, Fault, Rollout, Version, VersionStatus, describe, fault_of
from bema.deploy.model.replica import Replica
from bema.deploy.model.restarts import SECOND, begun, ended, served
from bema.deploy.orchestrator import data
from bema.deploy.orchestrator.build import BuildProgress, build, is_there, workload_of
from bema.deploy.orchestrator.departures import Departures, fell_asleep
from bema.deploy.orchestrator.events import DeploymentEvents
from bema.deploy.orchestrator.garbage import collect, left_over, sweep, sweep_unfinished
from bema.deploy.orchestrator.loads import DeploymentLoads
from bema.deploy.orchestrator.parts import Parts
from bema.deploy.orchestrator.replicas import Replicas
from bema.deploy.orchestrator.trials import Trials
from bema.deploy.orchestrator.unfinished import UnfinishedCalls
from bema.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

Change = Callable[[VersionStatus], VersionStatus]
# a keeper that drains starts nothing more, which is no failure of the script
_CAUSES = {"unavailable": "stopped", "secret_missing": "secret_missing"}
_QUIET = SECOND // 2
"""How long an instance must be missing, with no news of any, before its end counts as unseen."""
_AGAIN = 1.0
"""Seconds until something is tried again that the machine did not allow."""
_ALL = 30.0
"""Seconds between looks at all deployments."""
_CALLS = 2.0
"""Seconds between two questions for durable calls."""
_TURN = 100
"""Deployments looked at in one turn of the loop."""


class Reconciler:
    """Looks after the deployments of a store; `changed` tells who waits for one of them."""

    def __init__(self, parts: Parts) -> None:
        stored = parts.store.rollouts()
        self._parts = parts
        self.events = DeploymentEvents()
        self._tasks = Tasks("reconciler")
        self._turn = asyncio.Event()
        # one change at a time: each is made of the status that the one before it left
        self._changing = asyncio.Lock()
        self._replicas = Replicas()
        self.loads = DeploymentLoads(parts.clock, self._touch)
        self._departures = Departures(parts, self.loads, self._tasks)
        self._ended_meanwhile: set[int] = set()
        # of starts that may not be over: an end is told with its instance alone
        self._owners = {
            a.instance: (r.id, label)
            for r in stored.values()
            for label, status in r.statuses.items()
            for a in status.attempts
            if not a.ended
        }
        self._touched: dict[str, None] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._building: dict[tuple[str, str], asyncio.Task[None]] = {}
        # the versions of which listeners may be kept, by deployment
        self._listening: dict[str, set[str]] = {}
        for id, label in self._owners.values():
            self._listening.setdefault(id, set()).add(label)
        self._trials = Trials(
            self._tasks,
            parts.limits.health_answer,
            replica=self._replicas.get,
            changed=self.changed,
            fit=self._proven,
        )
        self.calls = UnfinishedCalls(parts.calls, parts.store, self._touch)
        self.progress = BuildProgress(self._notify)
        self._forgetting: set[str] = set()
        self._leaving: dict[str, str] = {}  # with the folder of data that each had
        # in memory alone: it tells of what could not be written down
        self._held: dict[str, Fault] = {}
        # what was stopped with the platform starts again with it; later, it waits for a request
        self._woken: set[str] = {id for id, rollout in stored.items() if not fell_asleep(rollout)}
        self._missing: dict[int, int] = {}
        # all at once, after a restart, each would be too slow to be ready in time
        self._builds = asyncio.Semaphore(parts.limits.builds)
        self._starts = asyncio.Semaphore(parts.limits.starts)

    async def adopt(self) -> None:
        """See what runs. Before the first time nothing is known, and what serves would be told of as starting."""
        known, self._ended_meanwhile = self._replicas.instances(), set()
        found = await self._parts.launcher.poll()
        self._replicas.polled((r for r in found if r.instance not in self._ended_meanwhile), known)
        for replica in found:
            self._listening.setdefault(replica.deployment, set()).add(replica.version)

    async def run(self) -> None:
        """Until cancelled; ends with the error when the launcher is gone."""
        self._leaving |= {id: id for id in await asyncio.to_thread(left_over, self._parts)}
        idle = not len(self._replicas)
        async with self._tasks:
            self._tasks.start(self._prepare(idle), "platform layer")
            self._tasks.start(self._afresh(), "failed builds")
            self._tasks.start(self._look_at_calls(), "unfinished calls")
            self._tasks.start(collect(self._parts), "garbage")
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
                for timer in self._due.values():
                    timer.cancel()

    async def _prepare(self, idle: bool) -> None:
        """What no start should wait for; what starts meanwhile uses nothing that could be swept."""
        await asyncio.to_thread(sweep_unfinished, self._parts)
        await self._parts.layers.layer(own_python())
        if idle:
            await asyncio.to_thread(sweep, self._parts)

    async def _afresh(self) -> None:
        """What failed to build before we came is tried once more, however short ago that was."""
        for rollout in list(self._parts.store.rollouts().values()):
            for label in [label for label, status in rollout.statuses.items() if status.build.again]:
                await self.change(rollout.id, label, VersionStatus.afresh)
                self._touch(rollout.id)

    async def _look_at_calls(self) -> None:
        while True:
            await self.calls.look()
            await asyncio.sleep(_CALLS)

    # what others ask

    def wake(self, deployment: str) -> None:
        """Somebody asks for it: look again."""
        self._woken.add(deployment)
        self.loads.used(deployment)
        self._touch(deployment)

    def leave(self, deployment: str, home: str) -> None:
        """A deployment was deleted: stop what is built and what runs of it, then forget it."""
        self._leaving[deployment] = home
        self._give_up(deployment)
        self._notify(deployment)

    def replaced(self, deployment: str) -> None:
        """What is desired of it is another: what is being built of versions that are not wanted any more is given up."""
        self._woken.add(deployment)
        rollout = self._parts.store.rollouts().get(deployment)
        wanted = set() if rollout is None else {rollout.deployment.candidate, *rollout.deployment.shares}
        self._give_up(deployment, wanted)
        self._notify(deployment)

    def _give_up(self, deployment: str, but: Container[str] = ()) -> None:
        for id, version in [key for key in self._building if key[0] == deployment and key[1] not in but]:
            self._building.pop((id, version)).cancel()
        self._touch(deployment)

    def has(self, home: str) -> bool:
        """Whether something that was deleted may still write there."""
        return home in self._leaving.values()

    def changed(self, deployment: str) -> asyncio.Event:
        """Set when its state may have become another than it is now."""
        return self._changed.setdefault(deployment, asyncio.Event())

    def instances_of(self, deployment: str) -> list[Replica]:
        return self._replicas.of(deployment)

    async def stop(self, instance: int, reason: str) -> None:
        """Let an instance end that is to be started anew."""
        await self._apply(plans.StopReplica(instance, reason))

    def held(self, deployment: str) -> Fault | None:
        """What keeps the machine from writing down what became of it, and so from starting it."""
        return self._held.get(deployment)

    def instances(self) -> int:
        return len(self._replicas)

    async def change(self, deployment: str, version: str, how: Change, *, waits: bool = True) -> None:
        """Replace the status of a deployment's version by what `how` makes of it, durably; nothing if it is gone.

        Where it cannot be written, it is tried again until it can. Who looks after others too does not wait for that.
        """
        while not await self._changes(deployment, version, how):
            self._notify(deployment)
            if not waits:
                self._tasks.start(self._change_later(deployment, version, how), f"record of {deployment}")
                return
            await asyncio.sleep(_AGAIN)
        if self._held.pop(deployment, None) is not None:
            self._touch(deployment)
        self._notify(deployment)

    async def desire(
        self,
        deployment: str,
        how: Callable[[Rollout], Deployment | None],
        save: Callable[[Deployment], Awaitable[None]] | None = None,
    ) -> bool:
        """Replace what is desired of a deployment by what `how` makes of it, durably; whether it made something.

        `save` writes it, where more is to be written with it. `Refused` where it cannot be written.
        """
        async with self._changing:
            rollout = self._parts.store.rollouts().get(deployment)
            then = None if rollout is None else how(rollout)
            if then is not None:
                await (save or self._parts.store.save)(then)
        if then is not None:
            self.replaced(deployment)
        return then is not None

    async def _change_later(self, deployment: str, version: str, how: Change) -> None:
        await asyncio.sleep(_AGAIN)
        await self.change(deployment, version, how)

    async def _changes(self, deployment: str, version: str, how: Change) -> bool:
        """Whether it is written down, or there is nothing to write it to."""
        try:
            async with self._changing:
                rollout = self._parts.store.rollouts().get(deployment)
                status = None if rollout is None else rollout.statuses.get(version)
                if status is not None and (then := how(status)) is not status:
                    await self._parts.store.record(deployment, version, then)
        except NotFound:
            pass
        except Refused as error:
            if error.code == "state_failed":
                raise
            logger.error("%s; trying again", error.message)
            self._held[deployment] = fault_of(error)
            return False
        return True

    def _touch(self, deployment: str) -> None:
        self._touched[deployment] = None
        self._turn.set()

    def _notify(self, deployment: str) -> None:
        if (waited_for := self._changed.pop(deployment, None)) is not None:
            waited_for.set()

    # what happens

    async def _listen(self) -> None:
        while True:
            event = await self._parts.launcher.next_event()
            if isinstance(event, Reported):
                self._reported(event)
            else:
                await self._happened(event)

    async def _happened(self, event: Announced | Exited) -> None:
        now, policy = self._parts.clock.now(), self._parts.policy
        instance, (owner, version) = event.instance, self._owner(event.instance)
        # ends are told one after the other: while they come, one that is missing may be next
        self._missing.clear()
        if isinstance(event, Announced):
            self._replicas.change(instance, lambda r: r.serving(event.announce, ready=event.ready))
            await self._serves(owner, version, instance)
        else:
            self._replicas.drop(instance)
            self.loads.gone((instance,))
            # a poll that was asked before may still list it
            self._ended_meanwhile.add(instance)
            how = {
                "cause": event.cause,
                "code": event.code,
                "signal": event.signal,
                "message": event.message,
                "log": tuple(str(r.get("event", "")) for r in event.tail if r.get("stream") != "bema"),
            }
            # told apart from what was stopped with the platform, which starts again with it
            if self._departures.end(instance) == plans.IDLE and event.cause == "stopped":
                how["message"] = plans.IDLE
            how |= self._trials.ended(instance)
            await self.change(
                owner, version, lambda s: s.tried(ended(s.attempts, instance, now, policy, **how), now), waits=False
            )
            self._owners.pop(instance, None)
        self._touch(owner)

    def _reported(self, event: Reported) -> None:
        """Nothing is to be done about it, but somebody may wait for it."""
        if (replica := self._replicas.change(event.instance, event.marked)) is not None:
            self._touch(replica.deployment)
            self._notify(replica.deployment)

    async def _serves(self, id: str, label: str, instance: int) -> None:
        """Write down that it serves; of what is on trial once it was found fit."""
        replica, wanted = self._replicas.get(instance), self._wanted(id, label)
        if wanted is None or replica is None:
            return
        rollout, version = wanted
        if not any(a.instance == instance and not a.ready for a in rollout.of(version).attempts):
            return
        if rollout.on_trial(version):
            self._trials.begin(replica, version)
        else:
            await self._proven(id, label, instance, waits=False)

    async def _proven(self, id: str, label: str, instance: int, *, waits: bool = True) -> None:
        now = self._parts.clock.now()

        def how(status: VersionStatus) -> VersionStatus:
            return status.tried(served(status.attempts, instance, now), now).proven(now)

        await self.change(id, label, how, waits=waits)
        self._touch(id)

    def _owner(self, instance: int) -> tuple[str, str]:
        """The deployment and the version that it is of."""
        # an end may come after its replica was dropped: what was started is known longer
        replica = self._replicas.get(instance)
        return self._owners.get(instance, ("", "")) if replica is None else (replica.deployment, replica.version)

    # look, plan, apply

    async def _turns(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.look_at_all()
            deadline = loop.time() + _ALL
            while (left := deadline - loop.time()) > 0:
                # not wait_for: before Python 3.12 it loses a cancellation that comes together with what it waits for
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._turn.wait()
                self._turn.clear()
                touched, self._touched = self._touched, {}
                await self._look_at(list(touched))

    async def look_at_all(self) -> None:
        await self.adopt()
        known = {*self._parts.store.rollouts(), *self._replicas.deployments(), *self._leaving}
        await self._look_at(sorted(known))

    async def _look_at(self, deployments: list[str]) -> None:
        for number, id in enumerate(deployments, 1):
            await self.look(id)
            if number % _TURN == 0:  # others have their turn too
                await asyncio.sleep(0)

    async def look(self, id: str) -> None:
        """Plan and apply one deployment. Nothing is awaited between the picture and the plan: they agree."""
        rollout, replicas = self._parts.store.rollouts().get(id), self._replicas.of(id)
        if rollout is not None and id in self._held:
            return
        rising = "" if rollout is None else rollout.deployment.rising
        if any(r.version == rising and r.state is not State.DRAINING for r in replicas):
            self._woken.discard(id)
        for replica in replicas:
            # also of what began to serve while there was no orchestrator
            if replica.state is State.SERVING:
                await self._serves(id, replica.version, replica.instance)
        rollout, replicas = self._parts.store.rollouts().get(id), self._replicas.of(id)
        actions = plans.plan(
            () if rollout is None else (rollout,),
            replicas,
            self._parts.clock.now(),
            self._parts.policy,
            # not by intersection: a set that was large is slow to go through when it is empty
            woken=frozenset((id,) if id in self._woken else ()),
            unfinished={id: self.calls.going(id)},
            leaving=frozenset((id,) if id in self._leaving and id not in self._forgetting else ()),
            wishes={} if rollout is None else {id: self.loads.wish(rollout.deployment, replicas, id in self._woken)},
        )
        await self._departures.resume(replicas)
        waits = [await self._apply(action) for action in actions]
        if rollout is not None:
            await self._close_listeners(rollout)
        self._look_after(id, min((wait for wait in waits if wait is not None), default=None))
        self._see(id)
        self._notify(id)

    def _see(self, id: str) -> None:
        rollout = self._parts.store.rollouts().get(id)
        if rollout is None:
            self.events.forget(id)
        else:
            self.events.see(
                describe(rollout, self._replicas.of(id), self._parts.policy, self.held(id)), self._parts.clock.now()
            )

    async def _close_listeners(self, rollout: Rollout) -> None:
        """Those of versions that run no more and are not meant to: whoever waits there would wait for ever."""
        known, deployment = self._listening.get(rollout.id, set()), rollout.deployment
        if len(known) < 2:
            return
        running = {replica.version for replica in self._replicas.of(rollout.id)}
        for version in known - running - {deployment.candidate, *deployment.shares, *self.calls.going(rollout.id)}:
            known.discard(version)
            await self._parts.launcher.forget(rollout.id, version)

    def _look_after(self, id: str, seconds: float | None) -> None:
        if (timer := self._due.pop(id, None)) is not None:
            timer.cancel()
        if seconds is not None:
            self._due[id] = asyncio.get_running_loop().call_later(seconds, self._touch, id)

    async def _apply(self, action: plans.Action) -> float | None:
        """Carry an action out or set it going; gives when to look again, where that is known."""
        match action:
            case plans.Wait(_, after):
                return after / SECOND
            case plans.StartBuild(id, version) if (id, version) not in self._building:
                self._woken.discard(id)
                self._building[id, version] = self._tasks.start(self._build(id, version), f"build {id}")
            case plans.StartReplica(id, version, slot):
                self._woken.discard(id)
                now = self._parts.clock.now()
                new = Replica(
                    instance=new_instance_id(), deployment=id, version=version, state=State.NEW, since=now, slot=slot
                )
                # known before its task runs: the next look must not start it again
                self._replicas.put(new)
                self._listening.setdefault(id, set()).add(version)
                self._tasks.start(self._start(id, version, new.instance), f"start {id}")
            case plans.GiveShare(instance, share, terms):
                return await self._give_share(instance, share, terms)
            case plans.Promote(id, version) | plans.GiveUp(id, version):
                how = Deployment.promoted if isinstance(action, plans.Promote) else Deployment.given_up
                # while that is its candidate: another may have been deployed meanwhile
                now = self._parts.clock.now()
                await self._desired(id, lambda r: how(r.deployment, now) if r.deployment.candidate == version else None)
            case plans.StopReplica(instance, reason):
                if unproven := reason == plans.UNPROVEN:
                    self._trials.failed(instance)
                if (replica := self._replicas.get(instance)) is not None:
                    self._replicas.put(msgspec.structs.replace(replica, state=State.DRAINING))
                    await self._departures.begin(replica, reason, at_once=unproven)
            case plans.Lost(id, instance):
                return await self._lost(id, instance)
            case plans.Forget(id):
                self._forgetting.add(id)
                self._tasks.start(self._forget(id), f"forget {id}")
        return None

    async def _give_share(self, instance: int, share: int, terms: Terms) -> float | None:
        try:
            await self._parts.launcher.route(instance, share, terms)
        except Refused as error:
            logger.error("%s; trying again", error.message)
            return _AGAIN
        now = self._parts.clock.now()
        if (routed := self._replicas.change(instance, lambda r: r.routed(share, terms, now))) is not None:
            self._touch(routed.deployment)
        return None

    async def _desired(self, id: str, how: Callable[[Rollout], Deployment | None]) -> None:
        try:
            await self.desire(id, how)
        except NotFound:
            pass
        except Refused as error:
            if error.code == "state_failed":
                raise
            logger.error("%s; trying again", error.message)
            self._look_after(id, _AGAIN)

    def _wanted(self, id: str, version: str) -> tuple[Rollout, Version] | None:
        """The deployment and that version of it, while it has it."""
        rollout = self._parts.store.rollouts().get(id)
        found = None if rollout is None else rollout.deployment.named(version)
        return None if rollout is None or found is None else (rollout, found)

    async def _build(self, id: str, label: str) -> None:
        try:
            async with self._builds:
                if (wanted := self._wanted(id, label)) is not None:
                    made = await build(*wanted, self._parts, self.progress.told(id))
                    await self.change(id, label, lambda s: s.built(made, self._parts.clock.now()))
                    if wanted[0].deployment.rising == label:
                        self._woken.add(id)  # somebody waits for what it was built for
        finally:
            # one that was given up must not hide the build that follows it
            if self._building.get((id, label)) is asyncio.current_task():
                del self._building[id, label]
                self.progress.over(id)
            self._touch(id)

    async def _start(self, id: str, label: str, instance: int) -> None:
        try:
            await self._until_its_data_is_free(id)
            async with self._starts:
                if (wanted := self._wanted(id, label)) is None:
                    return
                built = wanted[0].of(wanted[1]).build
                # somebody cleared the environments, or the interpreter was upgraded away
                if not await is_there(built):
                    again = Build(lock=built.lock)
                    await self.change(id, label, lambda s: s.built(again, self._parts.clock.now()))
                    return
                now = self._parts.clock.now()
                self._owners[instance] = id, label
                # written first: a start that nobody remembers could be made twice
                await self.change(id, label, lambda s: s.tried(begun(s.attempts, instance, now), now))
                # looked at again: with which share it is shown may have changed
                if (wanted := self._wanted(id, label)) is not None:
                    await self._launch(*wanted, instance)
        finally:
            # it was not launched: one that stays NEW would count as being started for ever
            known = self._replicas.get(instance)
            if known is not None and known.state is State.NEW:
                self._replicas.drop(instance)
            self._touch(id)

    async def _launch(self, rollout: Rollout, version: Version, instance: int) -> None:
        known = self._replicas.get(instance)
        slot = 0 if known is None else known.slot
        try:
            workload = await workload_of(rollout, version, slot, self._parts)
            replica = await self._parts.launcher.start(workload, instance)
        except Disconnected:
            return  # with its keeper went whatever was started
        except (BemaError, OSError) as error:
            cause = _CAUSES.get(error.code, "spawn") if isinstance(error, BemaError) else "spawn"
            now, policy = self._parts.clock.now(), self._parts.policy
            how = {"cause": cause, "message": str(error)}
            await self.change(
                rollout.id,
                version.label,
                lambda s: s.tried(ended(s.attempts, instance, now, policy, **how), now),
            )
        else:
            self._replicas.started(replica)

    async def _lost(self, id: str, instance: int) -> float | None:
        now, policy = self._parts.clock.now(), self._parts.policy
        since = self._missing.setdefault(instance, now)
        if 0 <= now - since < _QUIET:
            return (since + _QUIET - now) / SECOND
        del self._missing[instance]
        rollout = self._parts.store.rollouts().get(id)
        statuses = {} if rollout is None else rollout.statuses
        # its version is where its start is written
        found = (label for label, s in statuses.items() if any(a.instance == instance for a in s.attempts))
        _, version = self._owners.pop(instance, (id, next(found, "")))
        await self.change(
            id, version, lambda s: s.tried(ended(s.attempts, instance, now, policy, cause="lost"), now), waits=False
        )
        self._touch(id)
        return None

    async def _forget(self, id: str) -> None:
        try:
            await self._parts.launcher.forget(id)
            self._listening.pop(id, None)
            self.loads.forget(id)
            await asyncio.to_thread(shutil.rmtree, self._parts.logs(id), ignore_errors=True)
            # the last step: what is cut short before it is found again by its folders
            await data.leave(self._leaving[id], self._parts)
            del self._leaving[id]
        finally:
            self._forgetting.discard(id)
            self._notify(id)

    async def _until_its_data_is_free(self, id: str) -> None:
        """The deployment of that name before it may still be finishing its requests, and writing."""
        while (rollout := self._parts.store.rollouts().get(id)) is not None:
            home = self._parts.store.home(rollout.deployment)
            other = next((other for other, held in self._leaving.items() if held == home), None)
            if other is None:
                return
            await self.changed(other).wait()
