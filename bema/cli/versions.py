"""`bema versions`: the versions of a function, those one can go back to among them."""

from __future__ import annotations

import datetime as dt

import click

from bema.cli import api, output


@click.command()
@click.argument("name")
@output.json_option
def command(name: str, as_json: bool) -> None:
    """List the versions of a deployment, the newest first.

    NAME is its name or id. The ten last that served are kept.
    """
    found = api.versions(api.deployment(name)["id"])
    if as_json:
        output.print_json(found)
        return
    rows = [
        (
            f"{each['version']}{' *' if each['current'] else ''}",
            each["state"],
            f"{each['share']} %",
            f"{dt.datetime.fromtimestamp(each['created'] / 1_000_000, dt.UTC):%Y-%m-%d %H:%M} UTC",
            each["source"],
            each["digest"][:12],
        )
        for each in found
    ]
    output.print_table(("VERSION", "STATE", "SHARE", "CREATED", "SOURCE", "CONTENT"), rows)
