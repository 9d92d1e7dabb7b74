"""`bema schedules`: what is called by the clock, in the process that has it or, where none has, in its file."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from bema.cli import output
from bema.cli.calls import Place, places, when
from bema.core.errors import Conflict, NotFound


@click.group()
def command() -> None:
    """Look after schedules."""


@command.command("ls")
@click.argument("component", default="")
@output.json_option
def ls(component: str, as_json: bool) -> None:
    """List the schedules of a component, or of all."""

    async def listed() -> list[dict[str, Any]]:
        async with places(component) as found:
            return [{**each, "component": place.component} for place in found for each in await place.ask("schedules")]

    schedules = asyncio.run(listed())
    if as_json:
        output.print_json(schedules)
        return
    rows = [(s["name"], s["endpoint"], s["when"], _next(s), _at(s["fired"]), s["call"]) for s in schedules]
    output.print_table(("SCHEDULE", "ENDPOINT", "WHEN", "NEXT", "LAST", "CALL"), rows)


@command.command("pause")
@click.argument("name")
@click.argument("component", default="")
@output.json_option
def pause(name: str, component: str, as_json: bool) -> None:
    """Let a schedule fire no more until it is resumed, also when its service starts anew."""
    _print(asyncio.run(_asked(name, component, "pause_schedule")), as_json)


@command.command("resume")
@click.argument("name")
@click.argument("component", default="")
@click.option(
    "--missed", is_flag=True, help="What came meanwhile is made up for as the schedule says, once or not at all."
)
@output.json_option
def resume(name: str, component: str, missed: bool, as_json: bool) -> None:
    """Let a paused schedule fire again. What came meanwhile does not."""
    _print(asyncio.run(_asked(name, component, "resume_schedule", missed=missed)), as_json)


@command.command("run")
@click.argument("name")
@click.argument("component", default="")
@output.json_option
def run(name: str, component: str, as_json: bool) -> None:
    """Make the call of a schedule now, besides its times, and print its id."""
    id = asyncio.run(_asked(name, component, "run_schedule"))
    if as_json:
        output.print_json({"call": id})
    else:
        output.print_text(id)


async def _asked(name: str, component: str, operation: str, **arguments: Any) -> Any:
    """The answer of the one place that has the schedule."""
    async with places(component) as found:
        having = [place for place in found if await _has(place, name)]
        if not having:
            raise NotFound(f"there is no schedule {name!r}{f' of {component}' if component else ''}")
        if len(having) > 1:
            components = " and ".join(place.component for place in having)
            raise Conflict(
                f"{components} have a schedule {name!r}",
                code="usage",
                fix=f"Name the component: {name} {having[0].component}",
            )
        return await having[0].ask(operation, name=name, **arguments)


async def _has(place: Place, name: str) -> bool:
    return any(each["name"] == name for each in await place.ask("schedules"))


def _print(schedule: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(schedule)
    else:
        output.print_text(f"{schedule['name']}  {schedule['when']}  {_next(schedule)}")


def _next(schedule: dict[str, Any]) -> str:
    return "paused" if schedule["paused"] else _at(schedule["next"])


def _at(instant: int) -> str:
    return when(instant) if instant else "-"
