"""`bema dev`: a service while it is written."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import click

from bema.cli import output
from bema.cli.reloader import Reloader
from bema.cli.run import split
from bema.core.errors import Invalid
from bema.sdk.signals import Signals
from bema.sdk.status import server


@click.command()
@click.argument("target", metavar="FILE[:CLASS]")
@click.argument("arguments", nargs=-1)
@click.option("--here", is_flag=True, help="Use the Python that runs bema, whatever the file's PEP 723 block asks for.")
def command(target: str, arguments: tuple[str, ...], here: bool) -> None:
    """Run the service of a file and reload it when it is saved.

    The file and the modules it imports from its folder are watched. The new version starts beside the old one; when it
    serves, the old one finishes its calls and ends. When it does not start, the old one goes on. ARGUMENTS are what the
    file sees in sys.argv. What a PEP 723 block of the file asks for is installed as by `bema run`.
    """
    file, _ = split(target)
    if not file.is_file():
        raise Invalid(f"{file} is not a file", code="not_found", fix="Name the file of a service.")
    asyncio.run(_dev(file.resolve(), [*(("--here",) if here else ()), "--", target, *arguments]))


async def _dev(file: Path, arguments: list[str]) -> None:
    stop = asyncio.Event()
    asked = os.environ.get(server.PORT.variable)
    with contextlib.ExitStack() as held:
        # versions follow each other: none can bind the port while the one before it finishes its calls
        passed = {server.INHERITED: held.enter_context(server.bound()).fileno()} if asked else {}
        held.enter_context(Signals(stop.set))
        await Reloader(file, arguments, output.note, passed).run(stop)
