"""`bema client`: what callers in other projects need of a service, or of the platform."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from bema.cli import api, output
from bema.cli.run import load, service_of, split
from bema.core.errors import Invalid, Unavailable
from bema.core.instance import EndpointInfo
from bema.core.naming import check_name
from bema.core.spec import ServiceSpec
from bema.deploy import script_environment
from bema.runtime.distributed import connect
from bema.sdk import spec
from bema.sdk.codegen import client, http_client
from bema.sdk.codegen.described import spec_from


@click.group()
def command() -> None:
    """Clients: write a typed one of a service."""


@command.command("gen")
@click.argument("target", metavar="TARGET", default="")
@click.option("--api", "of_api", is_flag=True, help="Of the platform's own HTTP API instead of a service.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, not to stdout.")
@click.option("--stubs", is_flag=True, help="Write the stubs: a .pyi beside --out, or the stubs alone to stdout.")
@click.option("--here", is_flag=True, help="Use the Python that runs bema, whatever the file's PEP 723 block asks for.")
def generated(target: str, of_api: bool, out: Path | None, stubs: bool, here: bool) -> None:
    """Write a typed client of a service, or of the platform's API.

    TARGET is FILE[:CLASS], or namespace.component of a service that runs: what that says of itself tells names, shapes and
    types. One of an older bema tells no types, and its client takes and gives any value.

    With --api it is a client of the control API: of the platform that is up, or of TARGET, the file of an OpenAPI document.
    Its module needs msgspec alone.
    """
    if of_api:
        _write_api(target, out, stubs=stubs)
        return
    if not target:
        raise Invalid("a TARGET is missing", code="usage", fix="Name FILE[:CLASS] or namespace.component.")
    if _is_file(target) and not here:
        how = [*(("--out", str(out)) if out else ()), *(("--stubs",) if stubs else ())]
        script_environment.enter(split(target)[0], ["client", "gen", "--here", *how, "--", target], output.note)
    spec = _of_file(target) if _is_file(target) else asyncio.run(_of_instances(target))
    if out is None:
        output.print_text(client.module(spec, stub=stubs).rstrip("\n"))
        return
    _write(out, client.module(spec))
    if stubs:
        _write(out.with_suffix(".pyi"), client.module(spec, stub=True))


def _write_api(target: str, out: Path | None, *, stubs: bool) -> None:
    if stubs:
        raise Invalid("the client of the API has no stubs: it is typed itself", code="usage")
    text = http_client.module(_document(Path(target)) if target else api.document())
    if out is None:
        output.print_text(text.rstrip("\n"))
    else:
        _write(out, text)


def _document(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}", code="not_found") from error
    except msgspec.DecodeError as error:
        raise Invalid(f"{file} is no OpenAPI document: {error}") from error


def _is_file(target: str) -> bool:
    file, _ = split(target)
    return file.suffix == ".py" or file.exists()


def _of_file(target: str) -> ServiceSpec:
    file, name = split(target)
    return spec.spec_of(service_of(load(file), name, file))


async def _of_instances(target: str) -> ServiceSpec:
    """What the newest instance of the component says of it, or, where that says nothing, what all their records tell."""
    namespace, dot, component = target.partition(".")
    if not dot or "." in component:
        raise Invalid(f"{target!r} is neither a file nor namespace.component", code="usage")
    check_name(namespace, "namespace")
    check_name(component, "component")
    async with connect() as runtime:
        view = await runtime.view(namespace, component)
        # of several versions the newest is the one that will stay
        found = sorted(view.instances(), key=lambda instance: instance.since)
        if not found:
            raise Unavailable(f"no instance of {target} is there", fix="Start it, or name its file.")
        if (said := await runtime.descriptions.shown(found[-1])).digest:
            return spec_from(said)
    told: dict[str, EndpointInfo] = {info.name: info for instance in found for info in instance.endpoints}
    return client.told_spec(namespace, component, list(told.values()))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{file} cannot be written: {error.strerror}", code="state_unwritable") from error
    output.note(f"wrote {file}")
