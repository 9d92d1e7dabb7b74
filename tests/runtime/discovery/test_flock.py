"""The flock directory: a held lock is a lease, and the kernel keeps it."""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from bema.core.errors import Conflict, Refused
from bema.core.instance import Instance, State
from bema.core.limits import DEFAULTS
from bema.core.naming import new_instance_id, read_instance_id
from bema.runtime import forks
from bema.runtime.discovery import flock, records
from bema.runtime.discovery.discovery import wait_for
from bema.runtime.discovery.flock import FlockDiscovery, lock_path, record_path, remove_record, write_record
from bema.runtime.discovery.inotify import Inotify
from bema.runtime.processes import is_same, process_start
from tests import disks
from tests.runtime.helpers import an_instance, said_ready, spawn, until

WORKER = """
import asyncio, os, sys, time
from pathlib import Path
from bema.core.instance import Instance
from bema.core.limits import DEFAULTS
from bema.core.naming import new_instance_id
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.processes import process_start

async def main():
    me = Instance(id=new_instance_id(), namespace="demo", component="worker",
                  pid=os.getpid(), process_start=process_start(os.getpid()))
    await FlockDiscovery(Path(sys.argv[1])).register(me)
    if "fork" in sys.argv:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    if "leak" in sys.argv:  # a child that keeps every descriptor, as a fork outside of Python does
        import subprocess
        fds = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
        subprocess.Popen(["sleep", "60"], pass_fds=[fd for fd in fds if fd > 2], stdout=subprocess.DEVNULL)
    print(me.label, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "d"


@contextlib.contextmanager
def a_worker(folder, *how):
    process = spawn(WORKER, folder, *how)
    try:
        yield process, read_instance_id(said_ready(process))
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_two_processes_meet_and_part(folder):
    async def story():
        view = await FlockDiscovery(folder).view("demo", "worker")
        assert view.instances() == ()
        with a_worker(folder) as (process, instance_id):
            await asyncio.wait_for(wait_for(view, lambda found: [i.id for i in found] == [instance_id]), 5)
            process.kill()
            await until(lambda: view.instances() == (), within=1)
        assert not record_path(folder, instance_id).exists()
        assert not lock_path(folder, instance_id).exists()
        await view.close()

    asyncio.run(story())


def children_of(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


@pytest.mark.alone
@pytest.mark.parametrize("how", ["fork", "leak"])
def test_a_killed_worker_is_gone_within_a_second_though_its_children_live(folder, how):
    async def story():
        view = await FlockDiscovery(folder).view()
        with a_worker(folder, how) as (process, instance_id):
            await until(lambda: [i.id for i in view.instances()] == [instance_id])
            children = children_of(process.pid)
            assert children
            process.kill()
            try:
                assert await until(lambda: view.instances() == ()) < 1
            finally:
                for child in children:
                    os.kill(child, signal.SIGKILL)
        await view.close()

    asyncio.run(story())


@pytest.mark.parametrize("watch", [True, False], ids=["inotify", "polling"])
def test_a_view_follows_register_update_and_release(folder, watch):
    async def story():
        one, other = FlockDiscovery(folder), FlockDiscovery(folder, watch=watch)
        view = await other.view("demo")
        assert (await other.view("elsewhere")).instances() == ()
        instance = an_instance()
        lease = await one.register(instance)
        assert (await one.view()).instances()[0].id == instance.id
        await until(lambda: [i.id for i in view.instances()] == [instance.id])
        await lease.update(msgspec.structs.replace(instance, state=State.DRAINING))
        await until(lambda: [i.state for i in view.instances()] == [State.DRAINING])
        await lease.release()
        await lease.release()
        await until(lambda: view.instances() == ())
        await one.close()
        await other.close()

    asyncio.run(story())


def test_closing_releases_what_is_held(folder):
    async def story():
        discovery = FlockDiscovery(folder)
        instance = an_instance()
        await discovery.register(instance)
        with pytest.raises(Conflict, match=instance.label):
            await FlockDiscovery(folder).register(instance)
        await discovery.close()
        assert not record_path(folder, instance.id).exists()

    asyncio.run(story())


@contextlib.contextmanager
def a_process_with(reservation):
    """One that holds a copy of the reservation's descriptor and knows nothing of it."""
    process = subprocess.Popen(["sleep", "60"], pass_fds=[reservation.descriptor])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_was_handed_over_ends_with_the_process_that_has_it(folder):
    async def story():
        view = await FlockDiscovery(folder).view()
        discovery = FlockDiscovery(folder)
        instance = an_instance()
        reservation = await discovery.reserve(instance.id)
        with a_process_with(reservation) as process:
            await reservation.hand_over()
            shown = msgspec.structs.replace(instance, pid=process.pid, process_start=process_start(process.pid))
            await reservation.update(shown)
            await until(lambda: [i.id for i in view.instances()] == [instance.id])
            await discovery.close()
            adopted = await FlockDiscovery(folder).adopt(instance.id)
            assert adopted.shown == reservation.shown
            process.kill()
            await until(lambda: view.instances() == (), within=1)
        assert not lock_path(folder, instance.id).exists()
        await view.close()

    asyncio.run(story())


def test_a_reserved_id_leaves_nothing_when_it_is_released_unused(folder):
    async def story():
        discovery = FlockDiscovery(folder)
        reservation = await discovery.reserve(an_instance().id)
        assert len(list(folder.glob("*.lock"))) == 1
        await reservation.release()
        await discovery.close()
        assert [path.name for path in folder.iterdir()] == [".fence"]

    asyncio.run(story())


def test_what_was_handed_over_and_could_not_be_written_is_written_later(folder, monkeypatch):
    async def story():
        discovery = FlockDiscovery(folder)
        view = await discovery.view()
        instance = an_instance()
        reservation = await discovery.reserve(instance.id)
        with a_process_with(reservation):
            await reservation.hand_over()
            written, full = flock.write_record, [OSError(errno.ENOSPC, "No space left"), OSError(errno.ENOSPC, "still")]

            def write(directory, record):
                if full:
                    raise Refused(str(full.pop()), code="state_unwritable")
                written(directory, record)

            monkeypatch.setattr(flock, "KEEP", 0.01)
            monkeypatch.setattr(flock, "write_record", write)
            with pytest.raises(Refused):
                await reservation.update(instance)
            assert reservation.shown is None
            await asyncio.wait_for(wait_for(view, lambda found: [i.id for i in found] == [instance.id]), 5)
            await reservation.release()
        await discovery.close()

    asyncio.run(story())


def test_files_are_for_their_user_alone(folder):
    async def story():
        discovery = FlockDiscovery(folder)
        folder.mkdir(parents=True, mode=0o755)
        instance = an_instance(token="secret")
        await discovery.register(instance)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        await discovery.close()

    asyncio.run(story())


def test_every_lease_has_a_higher_number_than_the_one_before(folder):
    async def story():
        one, other = FlockDiscovery(folder), FlockDiscovery(folder)
        fences = [(await discovery.register(an_instance())).fence for discovery in (one, other, one)]
        await one.close()
        fences.append((await other.register(an_instance())).fence)
        assert fences == sorted(set(fences))
        shown = (await other.view()).instances()
        assert {instance.fence for instance in shown} == {fences[1], fences[3]}
        await other.close()

    asyncio.run(story())


def test_a_stopped_counter_is_waited_for_and_named(folder):
    async def story():
        records.prepare(folder)
        with open(folder / ".fence", "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(Refused, match="fence stays locked"):
                await FlockDiscovery(folder, limits=DEFAULTS.but(lease=0.02)).register(an_instance())
        assert list(folder.glob("*.lock")) == []

    asyncio.run(story())


def test_a_reused_pid_is_another_process(folder):
    async def story():
        me = process_start(os.getpid())
        assert me and is_same(os.getpid(), me) and is_same(os.getpid(), 0)
        discovery = FlockDiscovery(folder)
        await discovery.register(an_instance(process_start=me + 1))
        assert (await discovery.view()).instances() == ()
        await discovery.close()

    asyncio.run(story())


def test_a_zombie_has_ended():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(process.pid) is None
    process.wait()


def test_what_the_dead_left_is_removed_by_whoever_sees_it(folder, tmp_path):
    async def story():
        records.prepare(folder)
        dead = an_instance(pid=0)
        socket = tmp_path / f"{dead.label}.sock"
        socket.touch()
        dead = msgspec.structs.replace(dead, addresses={"rpc": (f"unix:{socket}",)})
        lock_path(folder, dead.id).touch()
        write_record(folder, dead)
        without_record, draft = lock_path(folder, new_instance_id()), folder / ".draft.json"
        fresh = lock_path(folder, new_instance_id())
        for path in (without_record, draft, fresh):
            path.touch()
        for path in (without_record, draft):
            os.utime(path, (1, 1))
        discovery = FlockDiscovery(folder)
        assert (await discovery.view()).instances() == ()
        assert {path.name for path in folder.iterdir()} == {fresh.name}
        assert not socket.exists()
        await discovery.close()

    asyncio.run(story())


def test_what_a_launcher_holds_for_an_instance_is_shown(folder):
    async def story():
        records.prepare(folder)
        instance = an_instance()
        held = records.hold(folder, instance.id)
        write_record(folder, instance)
        view = await FlockDiscovery(folder).view()
        assert [i.id for i in view.instances()] == [instance.id]
        os.close(held)
        await until(lambda: view.instances() == (), within=1)
        remove_record(folder, instance.id)
        await view.close()

    asyncio.run(story())


def test_garbled_records_are_skipped_with_one_warning_each(folder, caplog):
    async def story():
        records.prepare(folder)
        label = records.record_path(folder, new_instance_id()).name
        (folder / label).write_bytes(b"\xff{")
        os.mkfifo(record_path(folder, new_instance_id()))
        record_path(folder, new_instance_id()).symlink_to("/etc/passwd")
        record_path(folder, new_instance_id()).mkdir()
        record_path(folder, new_instance_id()).write_bytes(b" " * (records.LARGEST + 1))
        record_path(folder, new_instance_id()).write_bytes(msgspec.json.encode(an_instance()))
        (folder / "notes.json").write_text("not a label")
        discovery = FlockDiscovery(folder, watch=False)
        with caplog.at_level(logging.WARNING, "bema.discovery"):
            view = await discovery.view()
            good = an_instance()
            await discovery.register(good)
            await until(lambda: [i.id for i in view.instances()] == [good.id])
            await asyncio.sleep(0.6)  # two polls: what was said is not said again
        assert len(caplog.records) == 6
        await discovery.close()

    asyncio.run(story())


def test_a_file_system_without_flock_is_refused(folder, monkeypatch):
    def no_locks(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    async def story():
        with pytest.raises(Refused, match="No locks available") as refused:
            await FlockDiscovery(folder).register(an_instance())
        assert refused.value.code == "no_flock"

    monkeypatch.setattr(fcntl, "flock", no_locks)
    asyncio.run(story())
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, how: None)
    with pytest.raises(Refused, match="locked twice"):
        records.hold(folder, new_instance_id())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()

    async def story():
        for folder in (tmp_path / "file" / "d", tmp_path / "file"):
            with pytest.raises(Refused) as refused:
                await FlockDiscovery(folder).register(an_instance())
            assert refused.value.code == "state_unwritable"

    asyncio.run(story())


def test_a_folder_that_goes_away_is_made_again(folder):
    async def story():
        discovery = FlockDiscovery(folder)
        view = await discovery.view()
        folder.rmdir()
        await until(folder.exists)
        instance = an_instance()
        await FlockDiscovery(folder).register(instance)
        await until(lambda: [i.id for i in view.instances()] == [instance.id])
        await view.close()

    asyncio.run(story())


@pytest.mark.parametrize("what", ["*", "*.json", "*.lock"])
@pytest.mark.parametrize("watch", [True, False], ids=["inotify", "polling"])
def test_who_lives_is_shown_on_when_its_files_are_removed_and_brings_them_back(folder, what, watch):
    async def story():
        here, there = FlockDiscovery(folder), FlockDiscovery(folder, watch=watch)
        view = await there.view()
        lease = await here.register(an_instance())
        await until(lambda: len(view.instances()) == 1)
        before, seen = view.instances(), [view.instances()]
        view.subscribe(lambda: seen.append(view.instances()))
        files = {path for path in folder.glob("*") if path.suffix in (".json", ".lock")}
        for path in folder.glob(what):
            path.unlink()
        await until(lambda: all(path.exists() for path in files))
        newcomer = await FlockDiscovery(folder).view()
        assert newcomer.instances() == before
        assert all(picture == before for picture in seen), "it was never away"
        await lease.release()
        await until(lambda: view.instances() == newcomer.instances() == ())
        assert [path.suffix for path in folder.iterdir() if path.suffix in (".json", ".lock")] == []
        for discovery in (here, there):
            await discovery.close()
        await newcomer.close()

    asyncio.run(story())


def test_a_folder_that_was_away_is_taken_for_what_it_is(folder, caplog):
    """While it was away another was made in its place; its old lock is held by nobody."""

    async def story():
        here, there = FlockDiscovery(folder), FlockDiscovery(folder)
        view = await there.view()
        lease = await here.register(an_instance())
        await until(lambda: len(view.instances()) == 1)
        before, away = view.instances(), folder.with_name("away")
        folder.rename(away)
        folder.touch()
        await until(lambda: "cannot be written" in caplog.text)
        assert view.instances() == before
        folder.unlink()
        await until(lambda: record_path(folder, before[0].id).exists())
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        away.rename(folder)

        async def seen_anew() -> tuple[Instance, ...]:
            newcomer = await FlockDiscovery(folder).view()
            await newcomer.close()
            return newcomer.instances()

        async with asyncio.timeout(5):
            while await seen_anew() != before:
                await asyncio.sleep(0.01)
        await lease.release()
        await here.close()
        await there.close()

    asyncio.run(story())


def test_a_folder_in_whose_place_a_file_was_is_watched_again(folder, caplog):
    async def story():
        here, there = FlockDiscovery(folder), FlockDiscovery(folder)
        view = await there.view()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.touch()
        await until(lambda: "it is looked for until it is there" in caplog.text)
        folder.unlink()
        lease = await here.register(an_instance())
        await until(lambda: len(view.instances()) == 1)
        await lease.release()
        await until(lambda: view.instances() == ())
        await here.close()
        await there.close()

    asyncio.run(story())


@pytest.mark.alone
def test_who_is_killed_after_its_files_were_removed_is_gone(folder):
    async def story():
        view = await FlockDiscovery(folder).view()
        with a_worker(folder) as (process, instance_id):
            await until(lambda: [i.id for i in view.instances()] == [instance_id])
            for path in folder.glob("*"):
                path.unlink()
            process.kill()
            assert await until(lambda: view.instances() == ()) < 1
        await view.close()

    asyncio.run(story())


def test_without_inotify_the_folder_is_polled(folder, monkeypatch):
    monkeypatch.setattr(Inotify, "shared", classmethod(lambda cls: None))

    async def story():
        view = await FlockDiscovery(folder).view()
        other = FlockDiscovery(folder)
        lease = await other.register(an_instance())
        await until(lambda: len(view.instances()) == 1)
        await lease.release()
        await until(lambda: len(view.instances()) == 0)
        await view.close()

    asyncio.run(story())


def test_views_leave_nothing_open(folder):
    async def story():
        discovery = FlockDiscovery(folder)
        await discovery.register(an_instance())
        views = [await discovery.view() for _ in range(3)]
        for view in views:
            await view.close()
        await discovery.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(story())
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_child_let_go_is_not_closed_again(tmp_path):
    descriptor = os.open(tmp_path / "lease", os.O_RDWR | os.O_CREAT)
    forks.close_in_children(descriptor)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        os.write(writer, b"twice" if forks.forget(descriptor) else target.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"/dev/null"
    assert forks.forget(descriptor)
    for fd in (descriptor, reader, writer):
        os.close(fd)


def test_records_are_read_back_as_they_were_written(folder):
    records.prepare(folder)
    instance = an_instance(data={"model": "m"}, token="t", fence=3)
    write_record(folder, instance)
    assert records.read_record(folder, instance.label) == instance
    assert isinstance(instance, Instance)


@pytest.mark.alone
def test_keeping_thousands_of_leases_costs_nothing_while_nothing_changes(tmp_path):
    """With a timer and three looks at files for each, 5,000 of them took a seventh of a core."""

    async def story() -> float:
        discovery = FlockDiscovery(tmp_path)
        for number in range(2000):
            await discovery.register(an_instance(id=2**62 + number))
        await asyncio.sleep(flock.KEEP + 0.2)  # the first look reads the folder
        began = time.process_time()
        await asyncio.sleep(2.5 * flock.KEEP)
        spent = time.process_time() - began
        lost = records.record_path(tmp_path, 2**62 + 77)
        lost.unlink()
        await until(lost.exists)
        await discovery.close()
        return spent

    assert asyncio.run(story()) < 0.05


def test_a_record_is_written_on_a_full_disk_for_which_room_was_set_aside(tmp_path):
    with disks.small_disk(tmp_path / "disk", 1) as disk:
        records.set_aside(disk)
        disks.fill(disk)
        for number in range(20):
            records.write_record(disk, Instance(id=new_instance_id(), namespace="t", component=f"c{number}"))
            disks.fill(disk)
        assert len(list(disk.glob("*.json"))) == 20


def test_a_full_disk_without_such_room_is_a_refusal(tmp_path):
    with disks.small_disk(tmp_path / "disk", 1) as disk:
        disks.fill(disk)
        with pytest.raises(Refused, match="No space left on device"):
            records.write_record(disk, Instance(id=new_instance_id(), namespace="t", component="c"))
