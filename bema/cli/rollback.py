"""`bema rollback`: go back to an earlier version."""

from __future__ import annotations

import time

import click

from bema.cli import api, output, rollout


@click.command()
@click.argument("name")
@click.argument("version", default="")
@click.option("--no-wait", is_flag=True, help="Return once it is accepted.")
@output.json_option
def command(name: str, version: str, no_wait: bool, as_json: bool) -> None:
    """Go back to an earlier version of a deployment.

    VERSION is one that `bema versions NAME` lists; the one before the current, if left out. It starts beside what serves, and
    takes the requests once it serves.
    """
    begun = time.monotonic()
    found = api.rollback(api.deployment(name)["id"], version)
    rollout.finish(found, begun, wait=not no_wait, as_json=as_json)
