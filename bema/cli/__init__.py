"""The command line: a table of commands, each loaded when it is named.

Law: this module imports no command. `bema --help` prints the table's own lines, so it costs the same however many
commands there are; a test holds each line equal to the first line of its command's help.

A command module parses and prints; the work is one call into the room below it. It looks like this:

    import click
    from bema.cli import output

    @click.command()
    @click.argument("name")
    @output.json_option
    def command(name: str, as_json: bool) -> None:
        \"\"\"One line that is also the row's line below.\"\"\"
        found = look_up(name)                            # raises a BemaError: cli/errors prints it, sets the exit code
        if as_json:
            output.print_json(found)                     # data: stdout
        else:
            output.print_table(("NAME", "STATE"), [(found.name, found.state)])
        output.note("stop it with `bema rm NAME`")       # everything else: stderr

A command with verbs of its own (`bema config show`) is a `click.Group` named `command`.
"""

from __future__ import annotations

import codecs
import importlib
import io
import os
import sys
from typing import NamedTuple

import click

from bema.cli import errors
from bema.core.errors import Refused
from bema.core.version import VERSION


class Row(NamedTuple):
    target: str  # "module:attribute"
    help: str  # the first line of the command's docstring


# in story order; a row appears together with its module
COMMANDS: dict[str, Row] = {
    "up": Row("bema.cli.up:command", "Start the platform: keeper, orchestrator and gateway."),
    "new": Row("bema.cli.new:command", "Write a first service, API or set of tools to a new file."),
    "run": Row("bema.cli.run:command", "Run the service of a file."),
    "dev": Row("bema.cli.dev:command", "Run the service of a file and reload it when it is saved."),
    "call": Row("bema.cli.call:command", "Call an endpoint of a running service, or list its endpoints."),
    "client": Row("bema.cli.client:command", "Clients: write a typed one of a service."),
    "ls": Row("bema.cli.ls:command", "What there is: running instances and deployments."),
    "deploy": Row("bema.cli.deploy:command", "Deploy a script and wait until it is ready."),
    "configure": Row(
        "bema.cli.configure:command", "Change settings of a deployment while it runs; what is not named stays."
    ),
    "versions": Row("bema.cli.versions:command", "List the versions of a deployment, the newest first."),
    "rollback": Row("bema.cli.rollback:command", "Go back to an earlier version of a deployment."),
    "traffic": Row("bema.cli.traffic:command", "Share requests out among versions of a deployment."),
    "logs": Row("bema.cli.logs:command", "Print the log of a deployment."),
    "outdated": Row("bema.cli.outdated:command", "Packages of deployments for which there are newer versions."),
    "stack": Row("bema.cli.stack:command", "Where the threads and tasks of a deployment stand."),
    "profile": Row("bema.cli.profile:command", "Draw where the time of a deployment goes, as a flame graph."),
    "calls": Row("bema.cli.calls:command", "Look after durable calls."),
    "schedules": Row("bema.cli.schedules:command", "Look after schedules."),
    "replay": Row(
        "bema.cli.replay:command",
        "Run a durable call again with its recorded results, and tell where its code comes to.",
    ),
    "rm": Row("bema.cli.rm:command", "Remove deployments, their instances and their logs."),
    "secret": Row("bema.cli.secret:command", "Secrets of functions: set, list or remove them."),
    "keys": Row("bema.cli.keys:command", "Keys of the control API: make, list or revoke them."),
    "status": Row("bema.cli.status:command", "What runs, and where it is reached."),
    "package": Row("bema.cli.package:command", "Package classes: print, lint and plan the document."),
    "plugins": Row("bema.cli.plugins:command", "Plugins: list, check, lock, enable or disable them."),
    "config": Row("bema.cli.config:command", "Settings: every value and where it comes from."),
    "completion": Row("bema.cli.completion:command", "Print the completion script of a shell."),
    "doctor": Row("bema.cli.doctor:command", "Look for the usual trouble on this machine."),
    "explain": Row("bema.cli.explain:command", "What an error code means and what to do about it."),
}


_POSIX = ("fcntl", "pwd", "grp", "resource", "termios")
"""Modules of the standard library that not every system has."""


class Commands(click.Group):
    """A click group that reads the table and imports a command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        # one command is asked for: the imports of the others are most of what a start would cost
        module, _, attribute = row.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name not in _POSIX:
                raise
            raise Refused(
                f"`bema {cmd_name}` needs {error.name}, which {sys.platform} does not have",
                fix="Use Linux; on Windows, inside WSL.",
            ) from error
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click's own would load every command to ask for its help
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.help) for name, row in COMMANDS.items()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "-V", "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """Turn Python classes and scripts into services."""


def _as_utf8(arguments: list[str]) -> list[str]:
    """The arguments as whoever typed them wrote them, and streams that can say as much, in a locale without letters too."""
    if codecs.lookup(sys.getfilesystemencoding()).name != "ascii":
        return arguments
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    return [os.fsencode(argument).decode("utf-8", "surrogateescape") for argument in arguments]


def main(arguments: list[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    argv = _as_utf8(sys.argv[1:]) if arguments is None else arguments
    # not standalone: click would print failures its own way, and exit with codes of its own
    return errors.edge(lambda: cli.main(args=argv, prog_name="bema", standalone_mode=False), errors.wants_json(argv))
