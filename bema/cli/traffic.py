"""`bema traffic`: share requests out among the versions of a function."""

from __future__ import annotations

import time

import click

from bema.cli import api, output, rollout
from bema.core.errors import Invalid


@click.command()
@click.argument("name")
@click.argument("shares", metavar="VERSION=PERCENT", nargs=-1)
@click.option("--sticky", metavar="WHERE", help="header:NAME or cookie:NAME: equal values go to one version.")
@click.option("--promote", metavar="VERSION", help="Give all requests to a version.")
@click.option("--abort", is_flag=True, help="Give all requests to the current version again.")
@output.json_option
def command(
    name: str, shares: tuple[str, ...], sticky: str | None, promote: str | None, abort: bool, as_json: bool
) -> None:
    """Share requests out among versions of a deployment.

    `bema traffic NAME v3=90 v4=10` gives one in ten requests to v4. Without shares, tells how they are.
    """
    if (promote is not None) + abort + bool(shares) > 1:
        raise Invalid("say shares, --promote or --abort, and one of them only", code="usage")
    id, begun = api.deployment(name)["id"], time.monotonic()
    if promote is not None:
        rollout.finish(api.traffic(id, {_label(promote): 100}, sticky), begun, wait=True, as_json=as_json)
        return
    if not shares and not abort and sticky is None:
        found = api.read(id)
    else:
        found = api.traffic(id, {} if abort else dict(map(_share, shares)), sticky)
    if as_json:
        output.print_json(found)
    else:
        output.print_table(("VERSION", "SHARE"), [(label, f"{part} %") for label, part in found["traffic"].items()])


def _share(text: str) -> tuple[str, int]:
    label, equals, part = text.partition("=")
    if not equals or not label or not part.isdecimal():
        raise Invalid(f"a share is VERSION=PERCENT, not {text!r}", code="usage")
    return _label(label), int(part)


def _label(text: str) -> str:
    return f"v{text.removeprefix('v')}"
