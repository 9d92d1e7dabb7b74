"""`bema deploy`: a script becomes a service, or the next version of one; waits until it serves, or says why it will not."""

from __future__ import annotations

import time
from typing import Any

import click

from bema.cli import api, output, rollout
from bema.cli.deploy_many import deploy_all
from bema.cli.function_options import IN_PLACE, OF_A_VERSION, options, said
from bema.cli.outdated import versions
from bema.cli.sources import source_name, source_of
from bema.core.errors import Invalid


@click.command()
@click.argument("file", metavar="FILE", required=False, type=click.Path(allow_dash=True))
@click.option("--name", help="Name of the deployment; the file's, if left out.")
@click.option("--env", "-e", "pairs", metavar="K=V", multiple=True, help="A variable of its environment. Repeatable.")
@click.option("--secret", "secrets", metavar="NAME", multiple=True, help="A secret that it is given. Repeatable.")
@click.option("--keep", is_flag=True, default=None, help="One instance at a time has its data.")
@options(*IN_PLACE, *OF_A_VERSION)
@click.option("--traffic", "share", type=click.IntRange(1, 100), help="Percent of requests the version begins with.")
@click.option("--upgrade", metavar="NAME", help="Instead of a FILE: what has the name, with its newest packages.")
@click.option("--new", is_flag=True, help="Refuse a name that is taken.")
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@click.option("--no-wait", is_flag=True, help="Return once it is accepted.")
@output.json_option
def command(
    file: str | None,
    name: str | None,
    pairs: tuple[str, ...],
    secrets: tuple[str, ...],
    share: int | None,
    upgrade: str | None,
    new: bool,
    dry_run: bool,
    no_wait: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Deploy a script and wait until it is ready.

    FILE is a Python script, with its dependencies in a PEP 723 block; - reads it from stdin. It may also be a folder or an archive
    of several files, or where they lie elsewhere: https://..., gist:ID[@REVISION], git+https://...[@REF][#PATH], s3://BUCKET/KEY.

    What has the name already becomes this: the new version starts beside the old one, and takes its requests once it serves.

    Without FILE it deploys every [[function]] of bema.toml, in order.

    With --upgrade the next version is the same script with its packages locked anew, within the bounds that the script sets.
    """
    if upgrade is not None:
        if file or name or pairs or secrets or share or new or dry_run or said(settings):
            fix = "Give it alone; `bema outdated NAME` tells what it would change."
            raise Invalid("--upgrade changes nothing but packages", code="usage", fix=fix)
        _upgrade(upgrade, wait=not no_wait, as_json=as_json)
        return
    how: dict[str, Any] = {"dry_run": dry_run, "wait": not no_wait, "as_json": as_json}
    if file is None:
        if name or pairs or secrets or share or said(settings):
            raise Invalid("options of one function need its FILE", code="usage", fix="Write them in bema.toml.")
        deploy_all(
            lambda each: _deploy(
                each.name, each.source, each.env, {"settings": each.settings, "replace": not new}, **how
            )
        )
        return
    wanted = {"settings": said(settings) | ({"secrets": secrets} if secrets else {}), "replace": not new}
    some = {} if share is None else {"share": share}
    _deploy(name or source_name(file), source_of(file), _env(pairs), wanted | some, **how)


def _deploy(
    name: str,
    source: api.Json,
    env: dict[str, str],
    more: dict[str, Any],
    *,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> None:
    begun = time.monotonic()
    if dry_run:
        change = api.changes(name, source, env, **more)
        if as_json:
            output.print_json(change)
        else:
            output.print_text("\n".join(_told(change)))
        return
    rollout.finish(_create(name, source, env, **more), begun, wait=wait, as_json=as_json)


def _upgrade(name: str, *, wait: bool, as_json: bool) -> None:
    begun = time.monotonic()
    before = api.deployment(name)
    with output.Progress() as progress:
        progress.step(f"asking the indexes for {before['name']}")
        found = api.upgrade(before["id"])
    for package in found["packages"]:
        output.note(f"{package['name']}: {versions(package['locked'])} -> {versions(package['newest'])}")
    if rollout.rising(found) != rollout.rising(before):
        rollout.finish(found, begun, wait=wait, as_json=as_json)
        return
    # not waited for: it may sleep
    if as_json:
        output.print_json(found)
    else:
        output.print_text(found["url"])
    output.note(f"nothing newer is to be had: {found['name']} stays as it is")


def _create(name: str, code: str | api.Json, env: dict[str, str], **more: Any) -> api.Json:
    try:
        return api.create(name, code, env, **more)
    except KeyboardInterrupt:
        output.note(f"the request may have arrived: `bema ls` tells whether {name} is being deployed")
        raise


def _told(change: api.Json) -> list[str]:
    """What a deploy would change, a line for each."""
    version = change["version"]
    lines = [f"{change['name']}: {f'would make {version}' if version else 'would make no new version'}"]
    if change["code"]:
        lines.append("  code: changed")
    for what, mark in (("added", "+"), ("changed", "~"), ("removed", "-")):
        lines += (f"  variable: {mark} {key}" for key in change[f"env_{what}"])
    for what, mark in (("added", "+"), ("removed", "-")):
        lines += (f"  dependency: {mark} {key}" for key in change[f"dependencies_{what}"])
    lines += (f"  {key}: {_value(before)} -> {_value(after)}" for key, (before, after) in change["settings"].items())
    return lines


def _value(value: Any) -> str:
    return "not set" if value is None else str(value)


def _env(pairs: tuple[str, ...]) -> dict[str, str]:
    env = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Invalid(f"--env takes K=V, not {pair!r}")
        env[key] = value
    return env
