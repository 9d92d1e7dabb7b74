"""`bema ls`: what there is: the instances of this user on this machine, and the deployments of the platform if it is up."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import click
import msgspec

from bema.cli import api, output
from bema.core.errors import Unavailable
from bema.core.instance import HAND, Instance
from bema.core.naming import show_instance_id
from bema.core.start_report import StartReport
from bema.core.visible import visible_line
from bema.runtime.distributed import connect

_REASON = 100  # characters; `bema ls --json` and `bema logs` tell the rest


@click.command()
@click.option("--kept", is_flag=True, help="List what removed deployments wrote and `bema rm` kept.")
@click.option("-v", "--verbose", is_flag=True, help="Say of each instance how it is isolated and was started, too.")
@output.json_option
def command(kept: bool, verbose: bool, as_json: bool) -> None:
    """What there is: running instances and deployments."""
    if kept:
        _kept(as_json)
        return
    instances = asyncio.run(_instances())
    deployments = _deployments()
    if as_json:
        output.print_json({"deployments": deployments, "instances": [shown(i) for i in instances]})
        return
    if deployments:
        rows = [(d["name"], _state(d), d.get("url", "")) for d in deployments]
        output.print_table(("DEPLOYMENT", "STATE", "URL"), rows)
        for each in deployments:
            if each.get("error"):
                output.print_text(visible_line(f"{each['name']}: {each['error']['message']}"))
    if instances:
        head = ("SERVICE", "INSTANCE", "STATE", "PID", "ENDPOINTS", *(("ISOLATION", "START") if verbose else ()))
        table = [(*_row(i), *((_isolation(i), _start(i)) if verbose else ())) for i in instances]
        output.print_table(head, table)
    if not deployments and not instances:
        output.note("nothing runs; start a service with `python3 FILE`, or the platform with `bema up`")


def _kept(as_json: bool) -> None:
    found = api.data(kept=True)
    if as_json:
        output.print_json(found)
    elif found:
        rows = [(d["name"], d["files"], output.size(d["bytes"]), _day(d["kept"])) for d in found]
        output.print_table(("KEPT OF", "FILES", "SIZE", "SINCE"), rows)
        output.note("the next deployment of that name finds it; `bema rm NAME --purge` deletes it")
    else:
        output.note("nothing is kept of a deployment that was removed")


def _day(instant: int) -> str:
    return f"{dt.datetime.fromtimestamp(instant / 1_000_000, dt.UTC):%Y-%m-%d %H:%M} UTC"


def _deployments() -> list[dict[str, Any]]:
    """What the control API lists; nothing where no platform is up."""
    try:
        return api.deployments()
    except Unavailable as error:
        # services that were started by hand need no platform
        if error.code != "not_up":
            raise
        return []


async def _instances() -> tuple[Instance, ...]:
    async with connect() as runtime:
        # of all components, not of one: whoever is there is listed
        view = await runtime.discovery.view()
        found = view.instances()
        await view.close()
        return tuple(sorted(found, key=lambda i: (i.component_address, i.since)))


def shown(instance: Instance) -> dict[str, Any]:
    """An instance as data, without its token."""
    # whoever has the token may call the instance
    data: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(instance, token=""))
    return {
        **data,
        "id": show_instance_id(instance.id),
        "state": instance.state.value,
        "address": instance.component_address,
        "endpoints": [{"name": e.name, "shape": e.shape.value, "parameters": e.parameters} for e in instance.endpoints],
        "pid": instance.pid,
        "lane": instance.lane,
    }


def _state(deployment: dict[str, Any]) -> str:
    instance = deployment.get("instance") or {}
    if not instance.get("stalled"):
        return str(deployment["state"])
    return f"{deployment['state']}, {instance.get('stands') or 'stalled'}"


def _reason(deployment: dict[str, Any]) -> str:
    """What is wrong with it, as far as a row has room."""
    first, *_ = (deployment.get("error") or {}).get("message", "").splitlines() or [""]
    return first if len(first) <= _REASON else f"{first[: _REASON - 3]}..."


def _row(instance: Instance) -> tuple[str, ...]:
    marks = {"not ready": not instance.ready, "stalled": instance.stalled}
    state = ", ".join([instance.state.value, *(mark for mark, holds in marks.items() if holds)])
    endpoints = " ".join(endpoint.name for endpoint in instance.endpoints)
    lane = "" if instance.lane in (HAND, "") else f" ({instance.lane})"
    return instance.component_address + lane, instance.label, state, str(instance.pid), endpoints


def _isolation(instance: Instance) -> str:
    """What it has entered; nothing of what was started by hand."""
    entered = instance.data.get("isolation")
    if not isinstance(entered, dict) or "level" not in entered:
        return "none"
    network = entered.get("network")
    ports = "" if network is None else f", network {','.join(map(str, network)) or 'none'}"
    return visible_line(f"{entered.get('kind')} at level {entered['level']}{ports}")


def _start(instance: Instance) -> str:
    """How it was started, and how long that took; nothing of what no launcher started."""
    if "start" not in instance.data:
        return ""
    kind, milliseconds = StartReport.of(instance)
    return f"{kind} {milliseconds} ms"
