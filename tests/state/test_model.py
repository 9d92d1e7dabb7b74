"""Both engines give the same answers to the same history, whatever it is."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings, strategies

from bema.core.errors import BemaError
from bema.state.engine import Mutation, StateEngine
from bema.state.memory import MemoryEngine
from bema.state.sqlite import SqliteEngine

KEYS = strategies.sampled_from(["a", "a/1", "a/2", "a/é", "b", "b/\uffff", "b/\U0001f600", ""])
VALUES = strategies.one_of(strategies.none(), strategies.binary(max_size=3))
MUTATIONS = strategies.builds(Mutation, KEYS, VALUES, strategies.one_of(strategies.none(), strategies.integers(0, 12)))
GROUPS = strategies.lists(MUTATIONS, max_size=3)
STEPS = strategies.one_of(
    strategies.tuples(strategies.just("apply"), strategies.lists(GROUPS, min_size=1, max_size=4)),
    strategies.tuples(strategies.just("get"), KEYS),
    strategies.tuples(strategies.just("scan"), KEYS, KEYS, strategies.integers(0, 5)),
    strategies.tuples(strategies.just("put_blob"), strategies.binary(max_size=2)),
    strategies.tuples(strategies.just("drop"), strategies.binary(max_size=2)),
    strategies.tuples(strategies.just("watch"), strategies.integers(0, 12), KEYS),
)


async def answer(work: Any) -> Any:
    """What a question is answered, errors as their code and details."""
    try:
        return await work
    except BemaError as error:
        return error.code, error.details


async def told(engine: StateEngine, history: list[tuple[Any, ...]]) -> list[Any]:
    """All that an engine says in the course of a history."""
    watch = engine.watch(0)
    said: list[Any] = []
    for verb, *more in history:
        match verb:
            case "apply":  # together: a group of callers
                said += await asyncio.gather(*(answer(engine.apply(group)) for group in more[0]))
            case "get":
                said.append(await answer(engine.get(*more)))
            case "scan":
                said.append(await engine.scan(*more))
            case "put_blob":
                said.append(await engine.put_blob(*more))
            case "drop":
                await engine.drop_blobs([await engine.put_blob(*more)])
                said.append(await engine.blobs())
            case "watch":
                said.append(engine.watch(*more).take())
        said.append(engine.revision)
    return [*said, watch.take(), await engine.scan(), await engine.blobs()]


@settings(max_examples=60, deadline=None)
@given(strategies.lists(STEPS, max_size=15))
def test_both_engines_tell_the_same_of_a_history(history: list[tuple[Any, ...]]):
    async def story() -> None:
        with tempfile.TemporaryDirectory() as folder:
            durable = await SqliteEngine.at(Path(folder, "state.sqlite"))
            said = await told(durable, history)
            assert said == await told(MemoryEngine(), history)
            await durable.close()
            again = await SqliteEngine.at(Path(folder, "state.sqlite"))
            assert [await again.scan(), await again.blobs()] == said[-2:]
            await again.close()

    asyncio.run(story())
