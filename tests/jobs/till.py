"""A service without durable endpoints, whose processes the stories kill: `python till.py`."""

import asyncio
import os
import sys
from pathlib import Path

import bema
from bema import endpoint, service
from bema.core.errors import Unavailable

LOG = Path(os.environ["SHOP_LOG"])
GO = LOG.with_name("go")


def note(what: str) -> None:
    with LOG.open("a") as log:
        log.write(f"{what}\n")


@service(name="till", namespace="demo")
class Till:
    @endpoint(idempotent=True)
    async def send(self, number: int) -> str:
        note(f"send {number} by {os.getpid()}")
        return f"sent {number}"

    @endpoint(idempotent=True)
    def print(self, number: int) -> str:
        return f"printed {number}"

    @endpoint(idempotent=True)
    async def wait(self, number: int) -> str:
        note(f"wait {number}")
        while not GO.exists():
            await asyncio.sleep(0.01)
        return f"waited for {number}"

    @endpoint(idempotent=True)
    async def fails(self, times: int) -> str:
        note("fails")
        if LOG.read_text().splitlines().count("fails") <= times:
            raise Unavailable("the printer is off")
        return "printed"

    @endpoint
    async def plain(self) -> None: ...

    @endpoint(idempotent=True)
    async def rooms(self) -> list[str]:
        return sorted({".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("bema.")})


if __name__ == "__main__":
    asyncio.run(bema.serve(Till))
