"""The budget lets a burst and a fifth of the calls be repeated, no more."""

import asyncio
from typing import Any

import pytest

from bema.core.call import Call
from bema.core.errors import Disconnected
from bema.runtime.rpc.client import ATTEMPTS
from bema.runtime.rpc.retry_budget import RetryBudget
from tests.runtime.served import serving, unary


def taken(budget: RetryBudget) -> int:
    count = 0
    while count < 10_000 and budget.take():
        count += 1
    return count


def test_a_burst_then_a_fifth_of_the_calls():
    budget = RetryBudget()
    assert taken(budget) == 256
    assert not budget.take()
    budget.calls += 100
    assert taken(budget) == 20
    budget.calls += 1_000_000
    assert taken(budget) == 256, "what was not used is not saved up without end"


@pytest.mark.usefixtures("each_loop")
def test_a_client_repeats_within_its_budget_and_then_passes_the_failure_on(tmp_path):
    async def story():
        async with serving("unix", tmp_path) as served:
            ran = 0

            @served.handler(unary("breaks", idempotent=True))
            async def breaks(call: Call) -> Any:
                nonlocal ran
                ran += 1
                for connection in tuple(served.server.connections):
                    connection.abort(Disconnected("pulled"))
                await asyncio.Event().wait()

            await served.start()
            client = await served.client("breaks")
            with pytest.raises(Disconnected):
                await client.unary({})
            assert ran == ATTEMPTS, "the burst lets one call be repeated"
            while client._budget.take():
                pass
            with pytest.raises(Disconnected):
                await client.unary({})
            assert ran == ATTEMPTS + 1, "a budget that is used up repeats nothing"

    asyncio.run(story())
