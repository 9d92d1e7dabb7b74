"""The orchestrator, from a request to a serving instance and back, with its parts in memory."""

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bema.core import settings
from bema.core.access import GATEWAY, LOCAL_ADMIN
from bema.core.errors import BemaError, Conflict, Invalid, NotFound, Refused, TooLarge, Unavailable
from bema.core.limits import DEFAULTS
from bema.deploy.build.environments import Made, MemoryEnvironments, Wanted
from bema.deploy.build.pythons import own_python
from bema.deploy.launch.launcher import MemoryLauncher, crashes, hangs
from bema.deploy.launch.workload import WorkloadEnvironment
from bema.deploy.model.deployment import Activation, DeploymentInfo
from bema.deploy.model.restarts import SECOND, RestartPolicy
from bema.deploy.orchestrator.seeds import report, sow
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.store.deployments import Store
from bema.sdk.spec import spec_of
from bema.state.engine import Mutation
from tests.deploy.platform import ADA, BOB, Platform, eventually, script, until


def test_a_script_is_created_built_started_and_ready(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(GREETING="hi"), ADA)
            assert (info.name, info.state, info.kind, info.version) == ("hello", "building", "app", "v1")
            ready = await until(orchestrator, info.id, "ready")
            assert ready.instance is not None
            assert (ready.restarts, ready.error) == (0, None)
            (start,) = platform.launcher.started
            assert start.environment == WorkloadEnvironment(own_python().path, "/layer")
            assert start.env == {"GREETING": "hi"}
            assert (start.entry.kind, start.entry.name) == ("app", "app")
            assert Path(start.script).read_text() == "app = 1\n"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def (", "syntax_error"),
        ("# /// script\n", "pep723_unclosed"),
        ('# /// script\n# [tool.bema]\n# entry = "x"\n# ///', "entry_not_found"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, code: str, error: str):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            with pytest.raises(BemaError) as caught:
                await orchestrator.create(script(code=code), ADA)
            assert caught.value.code == error
            assert (await orchestrator.list(LOCAL_ADMIN)).items == []
        assert platform.launcher.started == []

    asyncio.run(story())


@pytest.mark.parametrize(
    "request_",
    [
        script(name="Not a label"),
        script(**{"A=B": "x"}),
        script(A="\0"),
        script(name="x" * 10**6),
        script(**{"=" * 10**5: "x"}),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, request_: Any):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            with pytest.raises(Invalid) as caught:
                await orchestrator.create(request_, ADA)
            assert len(caught.value.message) < 500

    asyncio.run(story())


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"A": "x", "BIG": "x" * 131_072}, "BIG"),
        ({"A": "x" * 100, **{f"V{n}": "x" * 100_000 for n in range(3)}}, "V0"),
        ({"A": "x", "UMLAUTS": "ä" * 50_000}, "UMLAUTS"),
        ({f"V{n}": "" for n in range(100_000)}, "V0"),
    ],
)
def test_more_environment_than_fits_is_refused_with_its_name_and_the_limit(
    tmp_path: Path, env: dict[str, str], name: str
):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            with pytest.raises(TooLarge) as caught:
                await orchestrator.create(script(**env), ADA)
            assert caught.value.details["name"] == name
            assert str(caught.value.details["limit"]) in caught.value.message
            assert (await orchestrator.list(ADA)).items == []

    asyncio.run(story())


def test_an_environment_that_was_stored_before_there_was_a_limit_fails_its_own_start(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        roomy = dataclasses.replace(platform.parts, limits=DEFAULTS.but(env=10**6, env_variable=10**6))
        platform.parts, parts = roomy, platform.parts
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(BIG="x" * 600_000), ADA)
            other = await orchestrator.create(script("other"), ADA)
            await until(orchestrator, info.id, "ready")
        platform.parts = parts
        for running in await platform.launcher.poll():
            platform.launcher.end(running.instance, signal=9)
        async with platform.orchestrator() as orchestrator:
            failed = await until(orchestrator, info.id, "start_failed")
            assert failed.error is not None
            assert "'BIG'" in failed.error.message
            await until(orchestrator, other.id, "ready")

    asyncio.run(story())


def test_a_record_that_cannot_be_read_is_listed_as_failed_and_ends_nothing(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            bad = await orchestrator.create(script("bad"), ADA)
            good = await orchestrator.create(script("good"), ADA)
            await until(orchestrator, good.id, "ready")
        await platform.engine.apply([Mutation(f"deployments/{bad.id}", b'{"id": 7')])
        platform.parts = dataclasses.replace(platform.parts, store=await Store.open(platform.engine))
        async with platform.orchestrator() as orchestrator:
            await until(orchestrator, good.id, "ready")
            listed = {info.id: info for info in (await orchestrator.list(ADA)).items}
            assert set(listed) == {good.id, bad.id}
            shown = await orchestrator.read(bad.id, ADA)
            assert (shown.name, shown.state) == ("bad", "start_failed")
            assert shown.error is not None and shown.error.code == "record_unreadable"
            assert (await orchestrator.activate(bad.id, 5, GATEWAY)).state == "start_failed"
            assert (await orchestrator.status(LOCAL_ADMIN))["deployments"] == {"ready": 1, "start_failed": 1}
            with pytest.raises(NotFound):
                await orchestrator.read(bad.id, BOB)
            with pytest.raises(Conflict):
                await orchestrator.create(script("bad"), ADA)
            await orchestrator.delete(bad.id, ADA)
            await eventually(lambda: platform.launcher.forgotten == [bad.id])
            await orchestrator.create(script("bad"), ADA)

    asyncio.run(story())


def test_a_name_in_use_tells_whose_it_is(tmp_path: Path):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            first = await orchestrator.create(script(), ADA)
            with pytest.raises(Conflict) as caught:
                await orchestrator.create(script(), ADA)
            assert (caught.value.code, caught.value.details["id"]) == ("name_taken", first.id)
            await orchestrator.create(script(), BOB)

    asyncio.run(story())


def test_a_request_that_is_repeated_with_its_key_is_done_once(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            answers = await asyncio.gather(*(orchestrator.create(script(), ADA, key="k") for _ in range(3)))
            assert answers[0] == answers[1] == answers[2]
            with pytest.raises(Conflict) as caught:
                await orchestrator.create(script(name="other"), ADA, key="k")
            assert caught.value.code == "key_reused"
            assert (await orchestrator.create(script(), BOB, key="k")).owner == "bob"

    asyncio.run(story())


def test_not_yours_looks_like_not_there(tmp_path: Path):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            mine = await orchestrator.create(script(), ADA)
            for ask in (orchestrator.read, orchestrator.delete):
                with pytest.raises(NotFound, match=mine.id):
                    await ask(mine.id, BOB)
            assert (await orchestrator.list(BOB)).items == []
            with pytest.raises(NotFound):
                await anext(orchestrator.logs(mine.id, BOB))

    asyncio.run(story())


def test_a_list_comes_in_pages(tmp_path: Path):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            for n in range(5):
                await orchestrator.create(script(f"s{n}"), ADA)
            first = await orchestrator.list(ADA, count=2)
            second = await orchestrator.list(ADA, after=first.next or "", count=2)
            third = await orchestrator.list(ADA, after=second.next or "", count=2)
            assert [[i.name for i in page.items] for page in (first, second, third)] == [
                ["s0", "s1"],
                ["s2", "s3"],
                ["s4"],
            ]
            assert third.next is None

    asyncio.run(story())


def test_a_build_that_fails_keeps_the_resolvers_text_and_starts_nothing(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.environments.failures["nope"] = "nope was not found"
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(code='# /// script\n# dependencies = ["nope"]\n# ///\n'), ADA)
            failed = await until(orchestrator, info.id, "build_failed")
            assert failed.error is not None
            assert (failed.error.code, failed.error.detail) == ("build_failed", "nope was not found")
            told = await orchestrator.activate(info.id, 5, GATEWAY)
            assert (told.state, told.error) == ("build_failed", failed.error)
            assert told.retry_after is not None
            assert 1 <= told.retry_after <= 60
        assert platform.launcher.started == []

    asyncio.run(story())


def test_a_build_that_failed_is_tried_once_more_by_the_next_orchestrator(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.environments.failures["nope"] = "the network is away"
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(code='# /// script\n# dependencies = ["nope"]\n# ///\n'), ADA)
            await until(orchestrator, info.id, "build_failed")
        async with platform.orchestrator() as orchestrator:
            await eventually(lambda: len(platform.environments.made) == 2)
        platform.environments.failures.clear()
        async with platform.orchestrator() as orchestrator:
            assert (await orchestrator.activate(info.id, 5, GATEWAY)).state in ("build_failed", "ready")
            await until(orchestrator, info.id, "ready")

    asyncio.run(story())


def test_a_build_ends_when_its_deployment_is_deleted(tmp_path: Path):
    class Endless(MemoryEnvironments):
        async def make(self, wanted: Wanted, told: Any = None) -> Made:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            raise AssertionError

    begun, ended = asyncio.Event(), asyncio.Event()

    async def story() -> None:
        platform = Platform(tmp_path)
        platform.parts = dataclasses.replace(platform.parts, environments=Endless(), limits=DEFAULTS.but(builds=1))
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            await asyncio.wait_for(begun.wait(), 5)
            await orchestrator.delete(info.id, ADA)
            await asyncio.wait_for(ended.wait(), 5)
            await eventually(lambda: platform.launcher.forgotten == [info.id])

    asyncio.run(story())


def test_a_script_that_exits_has_failed_to_start_and_is_not_started_hot(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = crashes(3, "Traceback", "KeyError: 'X'")
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            failed = await until(orchestrator, info.id, "start_failed")
            assert failed.error is not None
            assert failed.error.message == "hello never listened: it ended with code 3"
            assert failed.error.log == ("Traceback", "KeyError: 'X'")
            told = await orchestrator.activate(info.id, 5, GATEWAY)
            assert (told.state, told.error) == ("start_failed", failed.error)
            assert told.retry_after is not None
            (listed,) = (await orchestrator.list(ADA)).items
            assert listed.error is not None
            assert (listed.error.message, listed.error.log) == (failed.error.message, ())
        assert len(platform.launcher.started) == 1

    asyncio.run(story())


def test_a_deployed_script_goes_by_the_limits_of_the_platform_and_its_own_are_nearer(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.parts = dataclasses.replace(platform.parts, limits=DEFAULTS.but(drain=7.0, stalled=2.0))
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(BEMA_LIMITS__STALLED="1"), LOCAL_ADMIN)
            await until(orchestrator, info.id, "ready")
        (started,) = platform.launcher.started
        assert settings.read(started.env, {}).limits == DEFAULTS.but(drain=7.0, stalled=1.0)

    asyncio.run(story())


def test_a_script_that_never_listens_is_stopped_at_the_limit(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path, RestartPolicy(start_limit=SECOND // 5))
        platform.launcher.outcomes["hello"] = hangs
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            failed = await until(orchestrator, info.id, "start_failed")
            assert failed.error is not None
            assert "no listener after" in failed.error.message

    asyncio.run(story())


def test_what_cannot_be_spawned_has_failed_to_start(tmp_path: Path):
    def refuse(launcher: MemoryLauncher, instance: int) -> None:
        raise BemaError("no such file: python", code="start_failed")

    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = refuse
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            failed = await until(orchestrator, info.id, "start_failed")
            assert failed.error is not None
            assert failed.error.message == "hello cannot be started: no such file: python"

    asyncio.run(story())


def test_a_killed_instance_is_replaced_at_once_and_again_and_again_is_a_crash_loop(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            for n in range(1, 6):
                await eventually(lambda n=n: len(platform.launcher.started) == n)  # type: ignore[misc]
                await until(orchestrator, info.id, "ready")
                platform.launcher.end(platform.launcher.instances[-1], signal=9, tail=[{"event": "bye"}])
            looping = await until(orchestrator, info.id, "crash_loop")
            assert looping.restarts == 4
            assert looping.error is not None
            assert (looping.error.message, looping.error.log) == ("hello died: it was ended by signal 9", ("bye",))

    asyncio.run(story())


def test_a_deleted_deployment_stops_is_forgotten_and_is_not_found(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            await until(orchestrator, info.id, "ready")
            kept = tmp_path / "logs" / info.id
            kept.mkdir(parents=True)
            await orchestrator.delete(info.id, ADA)
            with pytest.raises(NotFound):
                await orchestrator.read(info.id, ADA)
            await eventually(lambda: platform.launcher.forgotten == [info.id])
            assert [reason for *_, reason in platform.launcher.stopped] == ["deleted"]
            await eventually(lambda: not kept.exists())
            again = await orchestrator.create(script(), ADA)
            assert again.id != info.id

    asyncio.run(story())


def test_a_new_orchestrator_adopts_what_runs_and_doubles_nothing(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as first:
            infos = [await first.create(script(f"s{n}"), ADA) for n in range(3)]
            before = [await until(first, info.id, "ready") for info in infos]
        async with platform.orchestrator() as second:
            after = [await second.read(info.id, LOCAL_ADMIN) for info in infos]  # it has looked before it answers
            assert {i.state for i in after} == {"ready"}
            assert [i.instance for i in after] == [i.instance for i in before]
        assert len(platform.launcher.started) == 3

    asyncio.run(story())


def test_what_ended_unseen_is_started_again(tmp_path: Path):
    async def story() -> None:
        old = Platform(tmp_path)
        async with old.orchestrator() as first:
            info = await first.create(script(), ADA)
            await until(first, info.id, "ready")
        platform = Platform(tmp_path, store=old.store)  # the keeper died too: nothing runs
        async with platform.orchestrator() as second:
            ready = await until(second, info.id, "ready")
            assert ready.restarts == 1

    asyncio.run(story())


def test_what_was_deleted_just_before_the_end_is_forgotten_by_the_next(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        gone = "11111111-2222-4333-8444-555555555555"
        for folder in ("logs", "homes"):
            (tmp_path / folder / gone).mkdir(parents=True)
        (tmp_path / "logs" / "bema").mkdir()
        async with platform.orchestrator():
            await eventually(
                lambda: not (tmp_path / "logs" / gone).exists() and not (tmp_path / "homes" / gone).exists()
            )
        assert platform.launcher.forgotten == [gone]
        assert (tmp_path / "logs" / "bema").exists()

    asyncio.run(story())


def test_what_was_stopped_is_idle_until_somebody_asks(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            await until(orchestrator, info.id, "ready")
            platform.launcher.end(platform.launcher.instances[-1], code=0, cause="stopped")
            await until(orchestrator, info.id, "idle")
            assert await orchestrator.activate(info.id, 5, GATEWAY) == Activation("ready")
        assert len(platform.launcher.started) == 2

    asyncio.run(story())


def test_a_platform_that_is_stopping_blames_no_script(tmp_path: Path):
    def refuse(launcher: MemoryLauncher, instance: int) -> None:
        raise Unavailable("the platform is stopping")

    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = refuse
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            assert (await until(orchestrator, info.id, "idle")).error is None

    asyncio.run(story())


def test_activating_waits_for_a_start_and_no_longer_than_told(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["hello"] = hangs
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            await until(orchestrator, info.id, "starting")
            assert (await orchestrator.activate(info.id, 0.05, GATEWAY)).state == "starting"
            waiting = asyncio.gather(*(orchestrator.activate(info.id, 10, GATEWAY) for _ in range(50)))
            await eventually(lambda: len(platform.launcher.started) == 1)
            platform.launcher.announce(platform.launcher.instances[0])
            assert {a.state for a in await waiting} == {"ready"}
            with pytest.raises(NotFound):
                await orchestrator.activate("nobody", 1, GATEWAY)
        assert len(platform.launcher.started) == 1

    asyncio.run(story())


def test_an_environment_that_went_missing_is_made_again_from_its_lock(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        python = tmp_path / "python"
        python.touch(mode=0o755)
        made = platform.environments.make

        async def make(wanted: Any, told: Any = None) -> Any:
            await made(wanted)
            python.touch(mode=0o755)
            return type(await made(wanted))(str(python), "key", "the lock")

        platform.environments.make = make  # type: ignore[method-assign]
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            await until(orchestrator, info.id, "ready")
            python.unlink()
            platform.launcher.end(platform.launcher.instances[-1], signal=9)
            await eventually(lambda: len(platform.launcher.started) == 2)
            await until(orchestrator, info.id, "ready")
        assert [w.lock for w in platform.environments.made] == ["", "", "the lock", "the lock"]

    asyncio.run(story())


def test_logs_are_read_and_followed_until_the_deployment_goes(tmp_path: Path):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            file = tmp_path / "logs" / info.id / "0000000000001.ndjson"
            file.parent.mkdir(parents=True)
            file.write_text("".join(json.dumps({"ts": n, "event": str(n)}) + "\n" for n in range(1, 5)))
            assert [line["ts"] async for line in orchestrator.logs(info.id, ADA, tail=2)] == [3, 4]
            lines = orchestrator.logs(info.id, ADA, tail=1, follow=True)
            assert (await anext(lines))["ts"] == 4
            await orchestrator.delete(info.id, ADA)
            assert [line async for line in lines] == []

    asyncio.run(story())


def test_it_ends_when_told_whatever_happens_at_that_moment(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        for _ in range(20):
            async with platform.orchestrator() as orchestrator:
                await asyncio.sleep(0)
                orchestrator._reconciler.wake("nobody")
            assert orchestrator._running.cancelled()

    asyncio.run(story())


def test_status_counts(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        platform.launcher.outcomes["bad"] = crashes()
        async with platform.orchestrator() as orchestrator:
            good = await orchestrator.create(script("good"), ADA)
            bad = await orchestrator.create(script("bad"), ADA)
            await until(orchestrator, good.id, "ready")
            await until(orchestrator, bad.id, "start_failed")
            status = await orchestrator.status(LOCAL_ADMIN)
            assert (status["deployments"], status["instances"]) == ({"ready": 1, "start_failed": 1}, 1)

    asyncio.run(story())


def test_when_the_launcher_is_gone_somebody_is_told(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)

        async def gone() -> Any:
            raise Unavailable("the keeper is gone")

        platform.launcher.next_event = gone  # type: ignore[method-assign]
        async with platform.orchestrator():
            await eventually(lambda: platform.failed == ["ended"])

    asyncio.run(story())


def test_when_nothing_more_can_be_written_somebody_is_told(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)

        async def failed(mutations: Any) -> int:
            raise Refused("the disk failed", code="state_failed")

        async with platform.orchestrator() as orchestrator:
            assert platform.failed == []
            platform.engine.apply = failed  # type: ignore[method-assign]
            with pytest.raises(Refused):
                await orchestrator.create(script(), ADA)
            assert platform.failed == ["ended"]

    asyncio.run(story())


def test_what_a_full_disk_holds_up_says_why_and_goes_on_when_there_is_room(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        apply, full = platform.engine.apply, True

        async def applied(mutations: Any) -> int:
            if full and all(mutation.value is not None for mutation in mutations):
                raise Refused("the store cannot be written: database or disk is full", code="state_unwritable")
            return await apply(mutations)

        async with platform.orchestrator() as orchestrator:
            other = (await orchestrator.create(script("other"), ADA)).id
            await until(orchestrator, other, "ready")
            id = (await orchestrator.create(script(), ADA)).id
            await until(orchestrator, id, "ready")
            platform.engine.apply = applied  # type: ignore[method-assign]
            platform.launcher.end(platform.launcher.instances[-1], code=None, signal=9)
            told = await until(orchestrator, id, "starting")
            while told.error is None:
                await asyncio.wait_for(orchestrator._reconciler.changed(id).wait(), 10)
                told = await orchestrator.read(id, ADA)
            assert (told.error.code, "disk is full" in told.error.message) == ("state_unwritable", True)
            assert [listed.error for listed in (await orchestrator.list(ADA)).items] == [None, told.error]
            # nobody else waits for it: what makes room is done
            await orchestrator.delete(other, ADA)
            await eventually(lambda: other in platform.launcher.forgotten)
            full = False
            told = await until(orchestrator, id, "ready")
            assert told.error is None
            assert len(platform.launcher.instances) == 3

    asyncio.run(story())


def test_seeds_are_sown_once(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        good, bad = tmp_path / "My_Worker.py", tmp_path / "bad.py"
        good.write_text("app = 1\n")
        bad.write_text("def (")

        async def sown(orchestrator: Orchestrator) -> list[DeploymentInfo]:
            await sow([good, bad, tmp_path / "none.py"], orchestrator, platform.store, ADA)
            return (await orchestrator.list(ADA)).items

        async with platform.orchestrator() as orchestrator:
            (info,) = await sown(orchestrator)
            assert info.name == "my-worker"
            await orchestrator.delete(info.id, ADA)
            assert await sown(orchestrator) == []
            bad.write_text("app = 1\n")
            assert [i.name for i in await sown(orchestrator)] == ["bad"]

    asyncio.run(story())


def test_what_became_of_a_seed_is_told_with_what_its_docstring_says_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    seed = tmp_path / "greeter.py"
    seed.write_text('"""Greets.\n\nbema call a.b.c\ncurl $URL/x\n"""\napp = 1\n')

    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            [known] = await sow([seed], orchestrator, platform.store, ADA)
            assert [known.id] == [again.id for again in await sow([seed], orchestrator, platform.store, ADA)]
            info = await asyncio.wait_for(orchestrator.settled(known.id, LOCAL_ADMIN), 10)
            assert report(seed, info, "http://u", "S=1 bema").splitlines() == [
                "greeter: ready  http://u",
                "  S=1 bema call a.b.c",
                "  curl http://u/x",
            ]
            monkeypatch.setattr(shutil, "which", lambda name: None)
            assert report(seed, info, "http://u", "bema").splitlines()[2] == "  http://u/x", (
                "there is no curl to paste to"
            )
            failed = msgspec.structs.replace(info, state="build_failed")
            assert report(seed, failed, "http://u", "bema").splitlines()[1] == "  bema logs greeter"

    asyncio.run(story())


def test_it_is_a_service_that_can_be_called_from_elsewhere():
    spec = spec_of(Orchestrator)
    shapes = {e.name: e.shape.value for e in spec.endpoints}
    assert spec.address == "bema.orchestrator"
    assert shapes == {
        **dict.fromkeys(("create", "read", "list", "delete", "data", "purge", "activate", "status"), "unary"),
        **dict.fromkeys(("add_key", "keys", "revoke_key", "put_secret", "secrets", "remove_secret", "loads"), "unary"),
        **dict.fromkeys(
            ("update", "configure", "dry_run", "versions", "rollback", "traffic", "stack", "profile"),
            "unary",
        ),
        **dict.fromkeys(("outdated", "upgrade"), "unary"),
        **dict.fromkeys(("logs", "events", "credentials"), "stream"),
    }


def test_one_that_says_it_is_not_ready_is_waited_for(tmp_path: Path):
    async def story():
        platform = Platform(tmp_path)
        async with platform.orchestrator() as orchestrator:
            made = await orchestrator.create(script(), ADA)
            await until(orchestrator, made.id, "ready")
            [running] = await platform.launcher.poll()
            platform.launcher.report(running.instance, ready=False)
            info = await until(orchestrator, made.id, "starting")
            assert info.instance is not None and not info.instance.ready
            waiting = asyncio.create_task(orchestrator.activate(made.id, 10, GATEWAY))
            platform.launcher.report(running.instance, stalled=True)
            assert (await waiting).state == "ready"
            info = await orchestrator.read(made.id, LOCAL_ADMIN)
            assert info.instance is not None and info.instance.stalled
            assert platform.launcher.instances == [running.instance]
            assert platform.launcher.stopped == []

    asyncio.run(story())


def test_what_a_build_does_is_told_as_long_as_it_does_it(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        told_on, making = asyncio.Event(), platform.environments.make

        async def make(wanted: Any, told: Any = None) -> Any:
            told("downloading numpy (16.1MiB)")
            await told_on.wait()
            return await making(wanted, told)

        platform.environments.make = make  # type: ignore[method-assign]
        async with platform.orchestrator() as orchestrator:
            info = await orchestrator.create(script(), ADA)
            while not (seen := await orchestrator.read(info.id, ADA)).progress:
                await orchestrator._reconciler.changed(info.id).wait()
            assert (seen.state, seen.progress) == ("building", "downloading numpy (16.1MiB)")
            told_on.set()
            assert (await until(orchestrator, info.id, "ready")).progress == ""

    asyncio.run(asyncio.wait_for(story(), 60))
