"""Traces and metadata through three services, and in what each of them logs."""

import asyncio
import json
import logging
import subprocess
import sys
import threading

import pytest

from bema import Call, depends, endpoint, service
from bema.core.call import traceparent
from bema.runtime.process import tracing
from bema.testing import System

log = logging.getLogger("tests.trace")


@service(name="third", namespace="trace")
class Third:
    @endpoint()
    async def answer(self, call: Call | None = None) -> dict[str, str]:
        log.warning("third")
        assert call is not None
        return call.metadata


@service(name="second", namespace="trace")
class Second:
    third = depends(Third)

    @endpoint()
    def in_a_thread(self) -> str:
        assert threading.current_thread() is not threading.main_thread()
        log.warning("in a thread")
        return tracing.trace_id()

    @endpoint()
    async def answer(self) -> dict[str, str]:
        log.warning("second")
        return await self.third.answer()


@service(name="first", namespace="trace")
class First:
    second = depends(Second)

    @endpoint()
    async def answer(self) -> dict[str, str]:
        log.warning("first")
        return await self.second.answer()


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.addFilter(tracing.TraceFilter())
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), record.trace_id))  # type: ignore[attr-defined]


@pytest.fixture
def kept():
    handler = Kept()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def test_what_a_caller_gives_reaches_the_third_hop_and_every_line(kept):
    given = traceparent()

    async def story():
        async with System(First, Second, Third) as system:
            first = system.client(First, metadata={"traceparent": given, "tenant": "blue"})
            found = await first.answer()
            assert (found["traceparent"], found["tenant"]) == (given, "blue")

    asyncio.run(story())
    trace = given.split("-")[1]
    assert kept.lines == [("first", trace), ("second", trace), ("third", trace)]


def test_a_call_without_a_trace_begins_one_and_each_call_its_own(kept):
    async def story():
        async with System(First, Second, Third) as system:
            for _ in range(2):
                await system.client(First).answer()

    asyncio.run(story())
    traces = [trace for _, trace in kept.lines]
    assert len(set(traces[:3])) == len(set(traces[3:])) == 1
    assert traces[0] != traces[3]
    assert len(traces[0]) == 32


def test_a_handler_in_a_thread_has_the_trace_too(kept):
    async def story():
        async with System(Second, Third) as system:
            found: str = await system.endpoint("trace.second.in_a_thread").client()()
            return found

    assert kept.lines == [("in a thread", asyncio.run(story()))]


def test_outside_of_a_call_there_is_no_trace(kept):
    log.warning("alone")
    assert kept.lines == [("alone", "")]
    assert tracing.trace_id() == ""


LINES = """
import logging, sys
from bema.core.call import CURRENT, Call
from bema.runtime.process import tracing
tracing.log_lines()
logging.getLogger("a").warning("two\\nlines")
CURRENT.set(Call(metadata={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}))
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("a.b").exception("it %s", "broke")
"""


def test_under_a_launcher_a_record_is_one_line_of_json():
    said = subprocess.run([sys.executable, "-c", LINES], capture_output=True, text=True, check=True).stderr
    first, second = map(json.loads, said.splitlines())
    assert first == {"event": "a: two\nlines", "level": "warning"}
    assert (second["level"], second["trace_id"]) == ("error", "a" * 32)
    assert second["event"].startswith("a.b: it broke\nTraceback (most recent call last):")
