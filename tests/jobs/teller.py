"""A process that owns durable calls, and says on its output what it was acknowledged: `python teller.py FOLDER CALLS`.

It exits 3 when the disk under its calls failed. Each step draws a number that no other run of it would draw: a result that was
done twice, or changed, is another one.
"""

import asyncio
import os
import secrets
import sys
from pathlib import Path
from typing import cast

from bema.core.call import Call, Unary
from bema.core.durable import Retry
from bema.core.errors import Refused
from bema.core.limits import DEFAULTS
from bema.core.naming import first_call_id
from bema.core.settings import PartSettings
from bema.jobs.calls import CallRecord
from bema.jobs.ledger import SqliteLedger
from bema.jobs.runner import Runner
from bema.jobs.worker import DurableEndpoint
from bema.runtime.rpc import signatures
from bema.runtime.rpc.adapter import handler_of

START = 1_700_000_000_000_000
STEPS = 3


def say(*words: object) -> None:
    # one write, not buffered: what was said before a kill was said
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


async def draw(_: int) -> int:
    return secrets.randbits(50)


async def draws(call: Call) -> list[int]:
    drawn = []
    for number in range(STEPS):
        drawn.append(await call.step(draw, number, retry=Retry()))
        say("given", call.id, number, drawn[-1])
        await call.sleep(0.001)
    return drawn


def id_of(number: int) -> str:
    return first_call_id(START) + f"{number:010d}"


async def tell(folder: Path, calls: int) -> int:
    runner = Runner(await SqliteLedger.open(PartSettings({}, DEFAULTS, folder), "t.t"))
    spec = signatures.read(draws, "draws", method=False)
    runner.endpoints["t.t.draws"] = DurableEndpoint(spec, cast("Unary", handler_of(draws, spec)))
    failed = asyncio.Event()
    runner.failed = lambda error: failed.set()
    runner.begin()
    asking = [asyncio.ensure_future(ask(runner, number)) for number in range(calls)]
    ending = asyncio.ensure_future(failed.wait())
    all_told = asyncio.ensure_future(asyncio.wait(asking))
    await asyncio.wait([all_told, ending], return_when=asyncio.FIRST_COMPLETED)
    if failed.is_set():
        return 3
    for one in asking:
        one.result()
    await runner.close()
    return 0


async def ask(runner: Runner, number: int) -> None:
    record = CallRecord(id=id_of(number), route="t.t.draws", created=START, key=f"key {number}")
    while True:
        try:
            kept = await runner.submit(record, runner.endpoints[record.route].encode_arguments({}))
            break
        except Refused as refused:
            say("refused", record.id, refused.code)
            await asyncio.sleep(0.05)
    say("acknowledged", kept.id)
    say("ended", kept.id, *(await runner.result(kept.id)))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    # at once, as the owner's process does: nothing is written after its disk failed
    os._exit(asyncio.run(tell(folder, int(sys.argv[2]))))
