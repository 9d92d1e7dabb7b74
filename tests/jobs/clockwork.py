"""The service whose schedules the stories watch: it writes down what the clock has it do."""

import asyncio
import os
from pathlib import Path

import bema
from bema import Call, endpoint, schedule, service

LOG = Path(os.environ["SHOP_LOG"])


async def note(what: str) -> None:
    with LOG.open("a") as log:
        log.write(f"{what}\n")


@service(name="clockwork", namespace="demo")
class Clockwork:
    @schedule(every=1)
    @endpoint(durable=True)
    async def tick(self, call: Call) -> None:
        await call.step(note, f"tick {call.metadata['bema-scheduled']}")

    @schedule("0 3 * * *", tz="Europe/Berlin", name="nightly", arguments={"what": "dust"})
    @endpoint(idempotent=True)
    async def clean(self, what: str, call: Call) -> str:
        await asyncio.sleep(0.01)  # a plain handler waits for what it likes
        await note(f"clean {what} {call.metadata.get('bema-schedule', 'by hand')}")
        return f"no {what}"


if __name__ == "__main__":
    asyncio.run(bema.serve(Clockwork))
