"""Requests that go on with another worker: what is asked of it, and that a reader notices nothing when one is killed."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.compat.dynamo.migration import Migration, MigrationLimits
from bema.compat.dynamo.runtime import Client, Context, DistributedRuntime
from bema.core.errors import BemaError, Disconnected, Invalid, Refused, RemoteError, StreamCut, Unavailable
from tests.compat.test_dynamo_runtime import run

CUT = StreamCut("its worker is gone")

# the next token is the last one and one more, so a gap or a double shows
ENGINE = """
import asyncio, os
from bema.compat.dynamo.runtime import DistributedRuntime, dynamo_worker

async def generate(request, context):
    last, most = request["token_ids"][-1], request["stop_conditions"]["max_tokens"]
    for number in range(1, most + 1):
        await asyncio.sleep(0.002)
        yield {"token_ids": [last + number], "pid": os.getpid(), "finish_reason": "length" if number == most else None}

async def count(request, context):
    for number in range(context.resume or 0, request):
        await asyncio.sleep(0.002)
        yield {"number": number, "pid": os.getpid()}

@dynamo_worker()
async def worker(runtime: DistributedRuntime):
    component = runtime.namespace("engines").component("counting")
    print("up", flush=True)
    await asyncio.gather(
        component.endpoint("generate").serve_endpoint(generate),
        component.endpoint("count").serve_endpoint(count, resumable=True),
    )

asyncio.run(worker())
"""


def asked(tokens: list[int], most: int | None = None, **more: Any) -> dict[str, Any]:
    stop = {} if most is None else {"stop_conditions": {"max_tokens": most, "ignore_eos": True}}
    return {"token_ids": tokens, **stop, **more}


def test_the_next_worker_is_asked_for_what_is_left():
    request = asked([1, 2], 10, model="m")
    migration = Migration(request, MigrationLimits(2))
    migration.take({"token_ids": [3]})
    migration.take({"_dynamo_annotated": True, "data": {"token_ids": [4, 5]}})
    left = {"token_ids": [1, 2, 3, 4, 5], "stop_conditions": {"max_tokens": 7, "ignore_eos": True}, "model": "m"}
    assert migration.again(CUT) == left
    assert request == asked([1, 2], 10, model="m"), "the caller's own stays what it was"
    migration.take({"token_ids": [6]})
    assert migration.again(Disconnected("gone"))["token_ids"] == [1, 2, 3, 4, 5, 6]  # type: ignore[index]
    assert migration.again(CUT) is None, "it moves twice at most"


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.lists(st.integers(0, 9), max_size=3)), st.integers(1, 99))
def test_prompt_and_tokens_stay_in_order_and_the_budget_is_kept(prompt, came, most):
    migration = Migration(asked(prompt, most), MigrationLimits(len(came) + 1))
    given_out: list[int] = []
    for tokens in came:
        migration.take({"token_ids": tokens})
        given_out += tokens
        again = migration.again(CUT)
        if len(given_out) >= most:
            assert (again, migration.whole) == (None, True)
            return
        assert again is not None
        assert again["token_ids"] == prompt + given_out
        assert again["stop_conditions"]["max_tokens"] + len(given_out) == most


@pytest.mark.parametrize(
    ("request_", "limits"),
    [
        (asked([1], 9), MigrationLimits(0)),
        ({"text": "hello"}, MigrationLimits(3)),
        ("hello", MigrationLimits(3)),
        (asked([1], 9, sampling_options={"guided_decoding": {"json": {}}}), MigrationLimits(3)),
        (asked([1, 2, 3], 9), MigrationLimits(3, longest=3)),
    ],
    ids=["off", "text", "str", "guided", "long"],
)
def test_what_cannot_be_continued_is_left_alone(request_, limits):
    migration = Migration(request_, limits)
    migration.take({"token_ids": [4]})
    assert (migration.again(CUT), migration.whole) == (None, False)


@pytest.mark.parametrize(
    ("error", "moves"),
    [
        (CUT, True),
        (Disconnected("gone"), True),
        (Unavailable("no worker"), True),
        (RemoteError("bye", type="GeneratorExit"), True),
        (RemoteError("no", type="ValueError"), False),
        (Unavailable("busy", status=503), False),
        (Invalid("no"), False),
        (BemaError("no"), False),
    ],
)
def test_a_request_moves_when_its_worker_ended_and_not_when_it_failed(error, moves):
    assert (Migration(asked([1]), MigrationLimits(1)).again(error) is not None) is moves


def test_the_limit_is_of_the_client_or_of_the_environment():
    assert MigrationLimits.of(None, {}) == (0, None)
    assert MigrationLimits.of(None, {"DYN_MIGRATION_LIMIT": "3", "DYN_MIGRATION_MAX_SEQ_LEN": "9"}) == (3, 9)
    assert MigrationLimits.of(1, {"DYN_MIGRATION_LIMIT": "3"}) == (1, None)
    with pytest.raises(Refused, match="DYN_MIGRATION_LIMIT is 'many'"):
        MigrationLimits.of(None, {"DYN_MIGRATION_LIMIT": "many"})


def test_a_generator_that_exits_hands_its_request_over_and_one_that_was_stopped_does_not():
    seen: list[list[int]] = []

    async def generate(request: dict[str, Any], context: Context) -> AsyncIterator[dict[str, Any]]:
        seen.append(request["token_ids"])
        for number in range(3):
            yield {"token_ids": [request["token_ids"][-1] + 1 + number]}
        raise GeneratorExit

    async def story():
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            endpoint = runtime.namespace("engines").component("short").endpoint("generate")
            serving = asyncio.create_task(endpoint.serve_endpoint(generate))
            client = endpoint.client(migration_limit=2)
            await client.wait_for_instances()
            came = []
            with pytest.raises(RemoteError):
                async for item in await client.generate(asked([0]), annotated=False):
                    came += item["token_ids"]
            assert came == list(range(1, 10))
            assert [len(tokens) for tokens in seen] == [1, 4, 7]
            context = Context()
            with pytest.raises(RemoteError):
                async for _ in await client.generate(asked([0]), context=context):
                    context.stop_generating()
            assert len(seen) == 4, "a stopped request moves nowhere"
            runtime.shutdown()
            await serving

    run(story)


# with workers that are killed


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[str]]]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    made = [subprocess.Popen([sys.executable, "-c", ENGINE], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in made:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "up\n"
    yield made
    for worker in made:
        worker.kill()
        worker.communicate()


async def read(client: Client, request: Any, kills: list[int]) -> list[dict[str, Any]]:
    """What a request gives; at the items of these numbers the worker that gave it is killed."""
    items: list[dict[str, Any]] = []
    async for item in await client.generate(request, annotated=False):
        items.append(item)
        if len(items) in kills:
            os.kill(item["pid"], signal.SIGKILL)
    return items


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("kills", [[40], [20, 90]])
def test_no_token_is_lost_or_doubled_when_a_worker_is_killed(kills):
    async def story():
        async with DistributedRuntime() as runtime:
            client = runtime.endpoint("engines.counting.generate").client(migration_limit=3)
            await client.wait_for_instances()
            items = await read(client, asked([1, 2, 100], 150), kills)
            tokens = list(itertools.chain.from_iterable(item["token_ids"] for item in items))
            assert tokens == list(range(101, 251))
            assert items[-1]["finish_reason"] == "length"
            assert len({item["pid"] for item in items}) == len(kills) + 1

    run(story)


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_without_a_limit_the_reader_is_told_that_its_worker_is_gone():
    async def story():
        async with DistributedRuntime() as runtime:
            client = runtime.endpoint("engines.counting.generate").client()
            await client.wait_for_instances()
            with pytest.raises(BemaError) as cut:
                await read(client, asked([100], 150), [40])
            assert isinstance(cut.value, ValueError)

    run(story)


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_a_resumable_stream_of_anything_goes_on_without_a_limit():
    async def story():
        async with DistributedRuntime() as runtime:
            client = runtime.endpoint("engines.counting.count").client()
            await client.wait_for_instances()
            items = await read(client, 150, [20, 90])
            assert [item["number"] for item in items] == list(range(150))
            assert len({item["pid"] for item in items}) == 3

    run(story)
