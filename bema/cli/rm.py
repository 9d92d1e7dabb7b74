"""`bema rm`: deployments are stopped and forgotten; what they wrote stays, unless somebody says otherwise."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import click

from bema.cli import api, output
from bema.core.errors import NotFound


class Target(NamedTuple):
    """What one name stands for: a deployment, what one wrote, or both."""

    name: str
    deployment: api.Json | None
    data: api.Json | None


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--purge", is_flag=True, help="Delete what they wrote, too.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output.json_option
def command(names: tuple[str, ...], purge: bool, yes: bool, as_json: bool) -> None:
    """Remove deployments, their instances and their logs.

    NAME is the name or the id that `bema ls` shows. What a function wrote to its HOME is kept, and the next deployment of
    that name finds it; --purge deletes it, now or later. `bema ls --kept` lists it. On a terminal it asks first.
    """
    # all are found before the first goes: a slip in one name removes nothing
    targets = [_target(name, purge) for name in dict.fromkeys(names)]
    if not yes and _is_asked():
        for target in targets:
            output.note(_says(target, purge))
        # on stderr: a question is no data
        if not click.confirm("Go on?", err=True):
            output.note("nothing is removed")
            raise click.Abort
    done: list[dict[str, Any]] = []
    try:
        for target in targets:
            _remove(target, purge)
            done.append(_told(target, purge))
            output.note(_has_gone(target, purge))
    finally:
        if as_json:
            output.print_json(done)


def _is_asked() -> bool:
    """Whether a person is there to answer; who reads our output in a pipe wants no question."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _target(name: str, purge: bool) -> Target:
    try:
        found = api.deployment(name)
    except NotFound as error:
        left = next((data for data in api.data(kept=True) if name in (data["name"], data["id"])), None)
        if left is None:
            raise
        if purge:
            return Target(left["name"], None, left)
        error.fix = f"What {left['name']} wrote is kept: `bema rm {left['name']} --purge` deletes it."
        raise
    mine = (data for data in api.data(name=found["name"]) if data["deployment"] == found["id"])
    return Target(found["name"], found, next(mine, None))


def _says(target: Target, purge: bool) -> str:
    lines = []
    if target.deployment is not None:
        lines.append(f"{target.name} ({target.deployment['state']}): removes its URL, its instance and its logs")
    if target.data is not None:
        lines.append(f"{target.name}: {'deletes' if purge else 'keeps'} what it wrote ({_amount(target.data)})")
    return "\n".join(lines)


def _has_gone(target: Target, purge: bool) -> str:
    if target.data is None:
        return f"{target.name} is removed"
    if target.deployment is None:
        return f"what {target.name} wrote is deleted ({_amount(target.data)})"
    if purge:
        return f"{target.name} is removed, with what it wrote ({_amount(target.data)})"
    return (
        f"{target.name} is removed; what it wrote ({_amount(target.data)}) is kept for the next of that name, "
        f"and `bema rm {target.name} --purge` deletes it"
    )


def _amount(data: api.Json) -> str:
    return f"{output.plural(data['files'], 'file')}, {output.size(data['bytes'])}"


def _remove(target: Target, purge: bool) -> None:
    if target.deployment is not None:
        api.delete(target.deployment["id"], purge=purge)
    elif target.data is not None:
        api.purge(target.data["id"])


def _told(target: Target, purge: bool) -> dict[str, Any]:
    data = None if target.data is None else {key: target.data[key] for key in ("id", "files", "bytes")}
    return {
        "name": target.name,
        "id": None if target.deployment is None else target.deployment["id"],
        "kept": None if purge else data,
        "purged": data if purge else None,
    }
