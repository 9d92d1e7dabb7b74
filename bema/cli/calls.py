"""`bema calls`: look after durable calls, in the process that has them or, where none has, in their file."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import click

from bema.cli import output
from bema.core import durable, settings
from bema.core.errors import Invalid, NotFound
from bema.core.instance import Instance
from bema.jobs.at_rest import CallsAtRest, at_rest
from bema.jobs.service import Jobs
from bema.runtime.distributed import DistributedRuntime, connect, spec_of
from bema.runtime.rpc.built_in import BuiltIn

_SERVICE = spec_of(Jobs).address
PATIENCE = 10.0  # seconds for an operation; `watch` asks again


Ask = Callable[[str, dict[str, Any], float], Awaitable[Any]]


class Place:
    """Where the durable calls of one component are: with an instance, with the platform's service, or at rest in their file."""

    def __init__(self, component: str, ask: Ask) -> None:
        self.component = component
        self._ask = ask

    async def ask(self, operation: str, timeout: float = PATIENCE, **arguments: Any) -> Any:
        return await self._ask(operation, arguments, timeout)


@contextlib.asynccontextmanager
async def places(component: str = "") -> AsyncIterator[list[Place]]:
    """Every place of durable calls here, or the one of a component."""
    async with connect() as runtime, contextlib.AsyncExitStack() as opened:
        shown = (await runtime.discovery.view()).instances()
        asks = {str(i.data["jobs"]): _with_owner(runtime, i) for i in shown if i.data.get("jobs")}
        # first the service: it answers also while an instance hangs, or none runs
        if any(i.component_address == _SERVICE for i in shown):
            asks |= {
                name: _with_service(runtime, name) for name in await runtime.client(Jobs, timeout=PATIENCE).names()
            }
        found = [Place(name, ask) for name, ask in asks.items() if _is_of(component, name)]
        async for name, operations in at_rest(settings.current(), opened, besides=asks.keys()):
            if _is_of(component, name):
                found.append(Place(name, _at_rest(operations)))
        if component and not found:
            raise NotFound(f"{component} has no durable calls here")
        yield sorted(found, key=lambda place: place.component)


def _is_of(component: str, name: str) -> bool:
    """Whether the calls of that name are the component's: a deployment's bear its id behind an @."""
    return component in ("", name, name.partition("@")[0])


def _with_owner(runtime: DistributedRuntime, instance: Instance) -> Ask:
    async def ask(operation: str, arguments: dict[str, Any], timeout: float) -> Any:
        asked = {"operation": operation, "arguments": arguments}
        return await BuiltIn(runtime.pool).ask(instance, durable.ENDPOINT, asked, timeout)

    return ask


def _with_service(runtime: DistributedRuntime, name: str) -> Ask:
    async def ask(operation: str, arguments: dict[str, Any], timeout: float) -> Any:
        return await runtime.client(Jobs, timeout=timeout).operate(name, operation, arguments)

    return ask


def _at_rest(operations: CallsAtRest) -> Ask:
    async def ask(operation: str, arguments: dict[str, Any], timeout: float) -> Any:
        async with asyncio.timeout(timeout):
            return await operations.ask(operation, arguments)

    return ask


async def _asked(id: str, operation: str, **arguments: Any) -> Any:
    """The answer of the place that has the call."""
    async with places() as found:
        for place in found:
            with contextlib.suppress(NotFound):
                return await place.ask(operation, id=id, **arguments)
    raise NotFound(f"there is no call {id}")


@click.group()
def command() -> None:
    """Look after durable calls."""


@command.command("ls")
@click.argument("component", default="")
@click.option("--state", default="", help="Only calls in this state, such as paused.")
@click.option("--count", "-n", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@output.json_option
def ls(component: str, state: str, count: int, as_json: bool) -> None:
    """List the newest calls of a component, or of all."""

    async def listed() -> list[dict[str, Any]]:
        async with places(component) as found:
            return [call for place in found for call in (await place.ask("list", count=count, state=state))["calls"]]

    calls = sorted(asyncio.run(listed()), key=lambda call: str(call["id"]), reverse=True)[:count]
    if as_json:
        output.print_json(calls)
        return
    rows = [(call["id"], call["route"], call["state"], when(call["created"]), _about(call)) for call in calls]
    output.print_table(("CALL", "ENDPOINT", "STATE", "CREATED", "ABOUT"), rows)


@command.command("show")
@click.argument("id")
@output.json_option
def show(id: str, as_json: bool) -> None:
    """Print a call with its arguments, its steps and its end."""
    found = asyncio.run(_asked(id, "show"))
    if as_json:
        output.print_json(found)
        return
    output.print_text(f"{found['id']}  {found['route']}  {found['state']}")
    output.print_text(f"  arguments  {json.dumps(found['arguments'], default=str)}")
    for step in found["steps"]:
        came = step.get("error") or json.dumps(step.get("result"), default=str)
        output.print_text(f"  {step['order']:>4}  {when(step['at'])}  {step['what']}  {came}")
    for wait in found.get("waits", ()):
        output.print_text(f"  waits for {_wait(wait)}")
    if found.get("why"):
        output.print_text(f"  because  {found['why']}")
    if "result" in found:
        output.print_text(f"  result  {json.dumps(found['result'], default=str)}")


@command.command("watch")
@click.argument("id")
def watch(id: str) -> None:
    """Print what happens to a call until it ends or is paused. Ctrl-C leaves it running."""

    async def follow() -> None:
        shown, state = 0, ""
        while True:
            found = await _asked(id, "show")
            for step in found["steps"][shown:]:
                output.print_text(f"{when(step['at'])}  {step['what']}")
            shown = len(found["steps"])
            if found["state"] != state:
                state = found["state"]
                output.print_text(f"{state}  {found.get('why', '')}".rstrip())
            if state in ("done", "failed", "cancelled", "paused"):
                return
            await asyncio.sleep(0.2)

    asyncio.run(follow())


@command.command("resume")
@click.argument("id")
@output.json_option
def resume(id: str, as_json: bool) -> None:
    """Let a paused call go on."""
    _print(asyncio.run(_asked(id, "resume")), as_json)


@command.command("restart")
@click.argument("id")
@click.option(
    "--from",
    "step",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="STEP",
    help="The first step to do again.",
)
@output.json_option
def restart(id: str, step: int, as_json: bool) -> None:
    """Run a call again and forget its steps from one on. It must be paused or have failed."""
    _print(asyncio.run(_asked(id, "restart", order=step)), as_json)


@command.command("cancel")
@click.argument("id")
@output.json_option
def cancel(id: str, as_json: bool) -> None:
    """End a call: its handler cleans up, and what it recorded for this is done."""
    _print(asyncio.run(_asked(id, "cancel")), as_json)


@command.command("answer")
@click.argument("id")
@click.argument("value", metavar="JSON")
@click.option("--at", "place", default="", metavar="PLACE", help="Which question, where the call asks several.")
def answer(id: str, value: str, place: str) -> None:
    """Answer what a call asks. A value that is no JSON is a text."""
    asyncio.run(_asked(id, "answer", value=_value(value), place=place))
    output.print_text(f"{id} has its answer")


@command.command("signal")
@click.argument("id")
@click.argument("name")
@click.argument("value", metavar="[JSON]", default="null")
def signal(id: str, name: str, value: str) -> None:
    """Give a call a signal, which is kept until it waits for it."""
    asyncio.run(_asked(id, "signal", name=name, value=_value(value)))
    output.print_text(f"{id} has the signal {name}")


def _print(call: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(call)
    else:
        output.print_text(f"{call['id']}  {call['route']}  {call['state']}")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if text[:1] in '{["':
            raise Invalid(f"{text!r} is not JSON", code="usage") from None
        return text


def _about(call: dict[str, Any]) -> str:
    if call.get("why"):
        return str(call["why"])
    return "; ".join(_wait(wait) for wait in call.get("waits", ()))


def _wait(wait: dict[str, Any]) -> str:
    if wait["kind"] == "ask":
        return f"asks for {wait['name']}: {wait.get('prompt', '')}".rstrip(": ")
    if wait["kind"] == "signal":
        return f"signal {wait['name']}"
    what = f"step {wait['name']} again" if wait["kind"] == "step" else "sleeps"
    return f"{what} until {when(wait['due'])}"


def when(instant: int) -> str:
    """An instant in the zone of this machine."""
    return dt.datetime.fromtimestamp(instant / 1_000_000, dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
