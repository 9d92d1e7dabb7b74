"""A notebook: a cell that defines and serves a class, run again, replaces what it served before."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import bema

CELL = """
from bema import endpoint, service

@service(name="tea", namespace="shop")
class Tea:
    @endpoint()
    async def brew(self) -> str:
        return {answer!r}
"""


def run_cell(cells: dict[str, Any], answer: str) -> asyncio.Task[None]:
    exec(CELL.format(answer=answer), cells)
    return asyncio.ensure_future(cells["Tea"].start())


async def answers(runtime: bema.DistributedRuntime) -> set[str]:
    client = runtime.namespace("shop").component("tea").endpoint("brew").client(wait=10)
    return {await client() for _ in range(8)}


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))


def test_the_class_that_was_defined_last_answers_alone():
    async def story() -> None:
        cells: dict[str, Any] = {"__name__": "__main__"}
        first = run_cell(cells, "first")
        async with bema.connect() as runtime:
            assert await answers(runtime) == {"first"}
            second = run_cell(cells, "second")
            async with asyncio.timeout(10):
                await first
            assert await answers(runtime) == {"second"}
            third = run_cell(cells, "third")
            async with asyncio.timeout(10):
                await second
            assert await answers(runtime) == {"third"}
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)

    asyncio.run(story())


def test_one_that_fails_to_start_replaces_nothing():
    async def story() -> None:
        cells: dict[str, Any] = {"__name__": "__main__"}
        first = run_cell(cells, "first")
        async with bema.connect() as runtime:
            assert await answers(runtime) == {"first"}
            bad = CELL.format(answer="bad") + "    def __init__(self):\n        raise ValueError('no water')\n"
            exec(bad, cells)
            with pytest.raises(ValueError, match="no water"):
                await cells["Tea"].start()
            assert await answers(runtime) == {"first"}
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(story())
