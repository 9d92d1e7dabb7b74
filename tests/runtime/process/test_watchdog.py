"""A loop that does not turn: marked by a thread, unmarked by the loop."""

import asyncio
import threading
import time

from bema import DistributedRuntime
from bema.runtime.discovery.flock import FlockDiscovery
from bema.runtime.process.watchdog import Watchdog


def seen_by_another_thread(folder, heard: list[bool], ended: threading.Event) -> threading.Thread:
    """A view in a loop of its own: what other processes would see."""

    async def watch() -> None:
        discovery = FlockDiscovery(folder)
        view = await discovery.view("demo", "slow")

        def look() -> None:
            heard.extend(i.stalled for i in view.instances())

        view.subscribe(look)
        look()  # it may have been there before this view
        while not ended.is_set():
            await asyncio.sleep(0.005)
        await discovery.close()

    thread = threading.Thread(target=asyncio.run, args=(watch(),))
    thread.start()
    return thread


def test_the_mark_comes_while_the_loop_stands_still_and_goes_when_it_turns(tmp_path):
    heard: list[bool] = []
    ended = threading.Event()

    async def story() -> None:
        async with DistributedRuntime(FlockDiscovery(tmp_path), limits={"stalled": 0.1}) as runtime:

            async def block() -> None: ...

            serving = asyncio.create_task(runtime.endpoint("demo.slow.block").serve_endpoint(block))
            while not heard:
                await asyncio.sleep(0.005)
            began = time.monotonic()
            while True not in heard and time.monotonic() - began < 5:
                time.sleep(0.005)
            assert heard[-1:] == [True]
            while heard[-1]:
                await asyncio.sleep(0.005)
            runtime.stop()
            await serving

    watcher = seen_by_another_thread(tmp_path, heard, ended)
    try:
        asyncio.run(asyncio.wait_for(story(), 20))
    finally:
        ended.set()
        watcher.join()
    assert sorted(set(heard)) == [False, True]


def test_what_is_told_late_does_not_bring_a_record_back(tmp_path):
    async def story() -> None:
        async with DistributedRuntime(FlockDiscovery(tmp_path)) as runtime:
            component = runtime.namespace("demo").component("slow")
            hosted = component.hosted
            record = runtime.host.record(hosted)
            lease = await runtime.discovery.register(record)
            await lease.release()
            lease.mark(record)

    asyncio.run(story())
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == []


def test_a_loop_that_turns_again_has_the_last_word():
    said: list[str] = []
    saying, turned = threading.Event(), threading.Event()

    def stalled() -> None:
        saying.set()
        turned.wait(0.2)  # the loop turns meanwhile, and must not be heard before this has been said
        said.append("stalled")

    def turns() -> None:
        said.append("turns")

    async def story() -> None:
        watch = Watchdog(0.05, stalled, turns)
        saying.wait(5)  # the loop stands still until the thread speaks
        while len(said) < 2:
            await asyncio.sleep(0.005)
        watch.close()

    asyncio.run(asyncio.wait_for(story(), 10))
    assert said[:2] == ["stalled", "turns"]


def test_a_loop_that_turns_is_left_in_peace_and_its_watch_ends():
    said: list[str] = []

    async def story() -> None:
        watch = Watchdog(0.05, lambda: said.append("stalled"), lambda: said.append("turns"))
        await asyncio.sleep(0.2)
        watch.close()

    asyncio.run(story())
    for thread in threading.enumerate():
        if thread.name == "bema-stall":
            thread.join(2)
    assert said == []
    assert "bema-stall" not in {thread.name for thread in threading.enumerate()}
