"""`bema config`: what holds here, and who said so."""

from __future__ import annotations

import click

from bema.cli import output
from bema.core.settings import SETTINGS, load


@click.group()
def command() -> None:
    """Settings: every value and where it comes from."""


@command.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@output.json_option
def show(origin: bool, as_json: bool) -> None:
    """Print every setting that holds in this folder."""
    held = load().all()
    if as_json:
        output.print_json(
            {name: {"value": v.value, "origin": v.origin} if origin else v.value for name, v in held.items()}
        )
    elif origin:
        rows = ((name, v.value, v.origin, SETTINGS[name].variable) for name, v in held.items())
        output.print_table(("SETTING", "VALUE", "ORIGIN", "VARIABLE"), rows)
    else:
        output.print_table(("SETTING", "VALUE"), ((name, v.value) for name, v in held.items()))
