"""`bema configure`: change of a function what needs no new process."""

from __future__ import annotations

from typing import Any

import click

from bema.cli import api, output
from bema.cli.function_options import IN_PLACE, options, said
from bema.core.errors import Invalid


@click.command()
@click.argument("name")
@options(*IN_PLACE)
@output.json_option
def command(name: str, as_json: bool, **settings: Any) -> None:
    """Change settings of a deployment while it runs; what is not named stays."""
    wanted = said(settings)
    if not wanted:
        raise Invalid("say what to change; `bema configure --help` lists it", code="usage")
    found = api.configure(api.deployment(name)["id"], wanted)
    if as_json:
        output.print_json(found)
    else:
        output.print_table(("SETTING", "VALUE"), [(key, str(value)) for key, value in found["settings"].items()])
