"""What durable calls cost when there are many: of those that sleep, memory; of those that ended, a page and the start."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from bema.core.clock import SystemClock
from bema.core.limits import DEFAULTS
from bema.core.naming import new_call_id
from bema.core.settings import PartSettings
from bema.jobs.calls import CallRecord, CallWait, DurableState
from bema.jobs.ledger import Ledger
from bema.jobs.operations import CallOperations
from bema.jobs.runner import Runner
from bema.state.engine import Mutation
from bema.state.sqlite import SqliteEngine

DAY = 86_400_000_000


class Growth(NamedTuple):
    sleeping: int  # bytes of memory per sleeping call
    timers: int  # timers and tasks more than without any call
    page: float  # seconds for a page of a hundred
    start: float  # seconds until the ledger of all that ended is open


async def _engine(folder: Path, name: str) -> SqliteEngine:
    limits = msgspec.structs.replace(DEFAULTS, jobs_kept=10_000_000)
    return await SqliteEngine.open(PartSettings({}, limits, folder), name)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def sleeping(folder: Path, count: int) -> tuple[int, int]:
    """Bytes for each of so many sleeping calls in their owner, and the timers and tasks that they add."""
    state = await _engine(folder, "sleeping.sqlite")
    now, encode = SystemClock().now(), msgspec.msgpack.encode
    for start in range(0, count, 1000):
        records = [
            CallRecord(
                id=new_call_id(now + number),
                route="bench.stepping.steps",
                created=now,
                state=DurableState.SLEEPING,
                due=now + DAY + number,
                attempts=1,
                fence=1,
                waits=(CallWait(place="1", kind="sleep", due=now + DAY + number),),
            )
            for number in range(start, min(start + 1000, count))
        ]
        await state.apply([Mutation(f"live/{record.id}", encode(record)) for record in records])
    await state.close()
    gc.collect()
    before = _resident()
    state = await _engine(folder, "sleeping.sqlite")
    runner = Runner(await Ledger.on(state, DEFAULTS))
    runner.begin()
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    timers = len(getattr(loop, "_scheduled", ())) + len(asyncio.all_tasks())
    gc.collect()
    used = (_resident() - before) // count
    await runner.close()
    return used, timers


async def ended(folder: Path, count: int) -> tuple[float, float]:
    """Seconds for a page, and for opening, with so many ended calls."""
    state = await _engine(folder, "ended.sqlite")
    now, encode = SystemClock().now(), msgspec.msgpack.encode
    for start in range(0, count, 2000):
        mutations = []
        for number in range(start, min(start + 2000, count)):
            record = CallRecord(
                id=new_call_id(now - count + number),
                route="bench.stepping.steps",
                created=now - count + number,
                state=DurableState.DONE,
                ended=now,
            )
            mutations.append(Mutation(f"done/{record.id}", encode(record)))
            mutations.append(Mutation(f"result/{record.id}", b"\x01"))
        await state.apply(mutations)
    await state.apply([Mutation("meta/ended", str(count).encode())])
    await state.close()
    began = time.monotonic()
    state = await _engine(folder, "ended.sqlite")
    runner = Runner(await Ledger.on(state, DEFAULTS))
    start_took = time.monotonic() - began
    began = time.monotonic()
    page = await CallOperations(runner).list(100)
    page_took = time.monotonic() - began
    assert len(page["calls"]) == min(100, count)
    await state.close()
    return page_took, start_took


def measured(folder: Path, sleepers: int, done: int) -> Growth:
    """All of it, in this process."""
    used, timers = asyncio.run(sleeping(folder, sleepers))
    page, start = asyncio.run(ended(folder, done))
    return Growth(used, timers, page, start)
