"""`bema profile`: where an instance's time goes, as a flame graph."""

from __future__ import annotations

from pathlib import Path

import click

from bema.cli import api, output
from bema.cli.flame_graph import draw, total
from bema.core.errors import Refused


@click.command()
@click.argument("name")
@click.option("--seconds", type=click.IntRange(1, 60), default=5, show_default=True, help="How long it is looked at.")
@click.option("--output", "-o", "file", type=click.Path(path_type=Path), help="The file; NAME.svg where none is said.")
@click.option(
    "--idle", is_flag=True, help="Weigh the threads that wait, too: time that passes, not time of a processor."
)
@click.option("--version", default="", help="An instance of that version, such as v3.")
@click.option("--instance", default="", help="The instance of that id, as `bema ls` shows it.")
@output.json_option
def command(name: str, seconds: int, file: Path | None, idle: bool, version: str, instance: str, as_json: bool) -> None:
    """Draw where the time of a deployment goes, as a flame graph.

    NAME is the name or the id that `bema ls` shows. The script is neither changed nor stopped for it. With --json the stacks
    are printed and nothing is drawn.
    """
    id = api.deployment(name)["id"]
    if not as_json:
        output.note(f"looking at {name} for {output.plural(seconds, 'second')}")
    found = api.profile(id, seconds, idle=idle, version=version, instance=instance)
    if as_json:
        output.print_json(found)
        return
    file = file or Path(f"{name}.svg")
    title = f"{name} {found['version']}, {seconds} s" + (" with threads that wait" if idle else "")
    try:
        file.write_text(draw(found, title), encoding="utf-8")
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}", fix="Name another with --output.") from error
    output.print_text(str(file))
    if not total(found):
        output.note("it used no processor in that time; --idle shows where it waits")
