"""A line per call in the log of who answers: endpoint, milliseconds, outcome, trace; and no cost where nobody reads it."""

import asyncio
import logging
import re
from typing import Any

import pytest

from bema.core.call import Call, traceparent
from bema.core.errors import Invalid, StreamCut
from bema.core.settings import current
from bema.runtime.rpc import call_log
from bema.runtime.rpc.call_log import CallLog
from tests.runtime.served import Served, serving, stream, unary, until

pytestmark = pytest.mark.usefixtures("each_loop")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, logger="bema.calls")

    def told() -> list[tuple[str, str]]:
        return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "bema.calls"]

    return told


async def started(served: Served, most: int = 1000) -> None:
    """One instance, with a log of at most `most` lines a second."""
    await served.start()
    server = served.server
    server.log = CallLog(most, server.came)
    for route in server.routes.values():
        server.log.add(route)


def test_every_call_has_its_line_with_the_trace_of_its_answer(tmp_path, lines, caplog):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("fine"))
            async def fine(call: Call) -> int:
                await asyncio.sleep(0.02)
                return 1

            @served.handler(stream("many"))
            async def many(call: Call) -> Any:
                for number in range(3):
                    yield number
                    await asyncio.sleep(0.01)

            await started(served)
            trace = traceparent()
            await (await served.client("fine")).unary({}, metadata={"traceparent": trace})
            async with (await served.client("many")).stream({}) as answers:
                assert [item async for item in answers] == [0, 1, 2]
            await until(lambda: len(lines()) == 2)
            (level, one), (_, other) = lines()
            assert level == "INFO"
            assert re.fullmatch(r"t\.t\.fine \d+\.\d ms ok", one) and float(one.split()[1]) >= 20
            assert re.fullmatch(r"t\.t\.many \d+\.\d ms ok", other) and float(other.split()[1]) >= 29
            traces = [record.trace_id for record in caplog.records if record.name == "bema.calls"]
            assert traces[0] == trace.split("-")[1]
            assert re.fullmatch("[0-9a-f]{32}", traces[1]), "a call that came without a trace began one"

    asyncio.run(story())


def test_a_failure_says_its_code_and_whose_trouble_it_is(tmp_path, lines):
    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("broken"))
            async def broken(call: Call) -> int:
                raise ValueError("no")

            @served.handler(unary("number", int))
            async def number(call: Call) -> Any:
                return "seven"

            @served.handler(unary("typed", int, n=int))
            async def typed(call: Call) -> int:
                return 1

            @served.handler(unary("waits"))
            async def waits(call: Call) -> None:
                await asyncio.Event().wait()

            @served.handler(unary("ends"))
            async def ends(call: Call) -> None:
                call.kill()

            await started(served)
            for name in ("broken", "number", "ends"):
                with pytest.raises((ValueError, Exception)):
                    await served.call(name)
            with pytest.raises(Invalid):
                await (await served.client("typed", endpoint=None)).unary({"n": "x"})
            left = asyncio.ensure_future(served.call("waits"))
            await asyncio.sleep(0.05)
            left.cancel()
            await until(lambda: len(lines()) == 5)
            said = [(level, re.sub(r" \d+\.\d ms", "", line)) for level, line in lines()]
            assert said == [
                ("WARNING", "t.t.broken remote_error"),
                ("WARNING", "t.t.number bad_answer"),
                ("WARNING" if StreamCut("x").problem.http >= 500 else "INFO", "t.t.ends stream_cut"),
                ("INFO", "t.t.typed invalid_argument"),
                ("INFO", "t.t.waits cancelled"),
            ]

    asyncio.run(story())


def test_beyond_the_lines_of_a_second_the_rest_is_counted_and_failures_still_have_theirs(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(call_log, "PERIOD", 0.3)

    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("fine"))
            async def fine(call: Call) -> int:
                return 1

            @served.handler(unary("broken"))
            async def broken(call: Call) -> int:
                raise ValueError("no")

            await started(served, most=5)
            watched = {name: route.unary for name, route in served.server.routes.items()}
            for _ in range(50):
                await served.call("fine")
            assert len(lines()) == 5
            assert served.server.routes["t.t.fine"].unary is not watched["t.t.fine"], "nobody watches it now"
            with pytest.raises(ValueError):
                await served.call("broken")
            assert lines()[-1] == ("WARNING", "t.t.broken remote_error")
            await until(lambda: "more calls" in lines()[-1][1])
            assert lines()[-1][1].startswith("46 more calls")
            await served.call("fine")
            await until(lambda: lines()[-1][1].endswith("ms ok"))

    asyncio.run(story())


def test_what_the_users_own_logging_raises_is_not_the_calls(tmp_path, monkeypatch):
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("cannot log")

    for name in ("bema.calls", "bema.service"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [Broken()])

    async def story():
        async with serving("unix", tmp_path) as served:

            @served.handler(unary("fine"))
            async def fine(call: Call) -> int:
                return 1

            @served.handler(unary("broken"))
            async def broken(call: Call) -> int:
                raise LookupError("the handler's")

            await started(served)
            assert await served.call("fine") == 1
            with pytest.raises(LookupError, match="the handler's"):
                await served.call("broken")

    asyncio.run(story())


def test_where_nobody_reads_it_there_is_no_log(caplog):
    caplog.set_level(logging.WARNING, logger="bema.calls")
    assert call_log.opened(current(), lambda: 0) is None
    caplog.set_level(logging.INFO, logger="bema.calls")
    assert call_log.opened(current(), lambda: 0) is not None
