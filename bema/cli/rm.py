"""`bema rm`: a deployment is stopped and forgotten."""

from __future__ import annotations

import click

from bema.cli import api, output


@click.command()
@click.argument("name")
def command(name: str) -> None:
    """Remove a deployment, its instance and its logs.

    NAME is the name or the id that `bema ls` shows.
    """
    found = api.deployment(name)
    api.delete(found["id"])
    output.note(f"{found['name']} is removed")
