"""The order of growth, by counted operations instead of time; in seconds it is `python3 dev.py bench growth`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.growth import CONSTANT, LINEAR, STEPS, Scene, Step, exponent, verdict

SMALL, LARGE = 100, 1_000


async def operations(step: Step, scene: Scene) -> int:
    """How many bytecodes one run of a step takes."""
    counted = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    await step.run(scene)  # what is made once is made
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await step.run(scene)
    finally:
        sys.settrace(before)
    return counted


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_grows_as_its_kind_does(step: Step, tmp_path: Path):
    async def story() -> None:
        taken = []
        for size in (SMALL, LARGE):
            scene = await Scene(size, tmp_path).open()
            taken.append(await operations(step, scene))
            await scene.close()
        assert min(taken) > 5, "nothing was counted"
        small, large = taken
        assert verdict(step.kind, small, large, (SMALL, LARGE)), taken

    asyncio.run(story())


def test_what_grows_faster_than_its_kind_is_told():
    sizes = (1_000, 10_000)
    assert verdict(CONSTANT, 1.0, 1.9, sizes)
    assert not verdict(CONSTANT, 1.0, 2.1, sizes)
    assert verdict(LINEAR, 1.0, 12.9, sizes)
    assert not verdict(LINEAR, 1.0, 13.1, sizes)
    assert exponent(1.0, 100.0, sizes) == pytest.approx(2.0)
