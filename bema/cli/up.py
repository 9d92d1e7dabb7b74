"""`bema up`: the platform of this machine, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from bema import system
from bema.core.settings import load


@click.command()
@click.option("--gateway-port", type=int, help="Port of the data listener.")
@click.option("--control-port", type=int, help="Port of the control listener.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    # a slip of the command line, found before anything was started
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A script to deploy under its file's name; edited, it replaces what runs. Can be given several times.",
)
def command(gateway_port: int | None, control_port: int | None, seeds: tuple[Path, ...]) -> None:
    """Start the platform: keeper, orchestrator and gateway.

    It runs until Ctrl-C: the first one lets running requests finish, the second ends everything at once.
    """
    system.up(load(flags={"gateway.port": gateway_port, "control.port": control_port}), seeds)
