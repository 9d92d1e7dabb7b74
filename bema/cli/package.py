"""`bema package`: the document, from classes to a plan."""

from __future__ import annotations

import click

from bema.cli import output
from bema.cli.package_lint import lint_command
from bema.cli.package_plan import plan_command
from bema.cli.package_print import print_command
from bema.packages.schema import schema


@click.group()
def command() -> None:
    """Package classes: print, lint and plan the document."""


@click.command("schema")
@click.option("--json", "as_json", is_flag=True, hidden=True, help="It is JSON anyway.")
def schema_command(as_json: bool) -> None:
    """Print the JSON Schema of the document, for editors."""
    output.print_json(schema())


for _verb in (print_command, lint_command, plan_command, schema_command):
    command.add_command(_verb)
