"""`bema secret`: values that functions are given by name. None is ever printed."""

from __future__ import annotations

import datetime as dt
import sys

import click

from bema.cli import api, output
from bema.core.errors import Invalid

_user = click.option("--user", default="", help="Whose it is; your own, if left out.")


@click.group()
def command() -> None:
    """Secrets of functions: set, list or remove them."""


@command.command("set")
@click.argument("name")
@click.argument("source", metavar="[-]", default="")
@_user
def set_(name: str, source: str, user: str) -> None:
    """Set a secret; functions that hold it are started anew.

    With - its value is read from stdin, without the newline at its end; else it is asked for. It is never an argument,
    which every process here could read.
    """
    if source not in ("", "-"):
        raise Invalid(
            "the value of a secret is no argument",
            code="usage",
            fix=f"`bema secret set {name} -` reads it from stdin; without - it is asked for.",
        )
    api.set_secret(name, _piped() if source else _asked(name), user=user)
    output.note(f"{name} is set; a function is given it by its setting `secrets`")


@command.command("ls")
@_user
@output.json_option
def ls(user: str, as_json: bool) -> None:
    """List secrets and when each was set, without their values."""
    found = api.secrets(user=user)
    if as_json:
        output.print_json(found)
        return
    output.print_table(("SECRET", "SET"), [(each["name"], _at(each["updated"])) for each in found])


@command.command("rm")
@click.argument("name")
@_user
def rm(name: str, user: str) -> None:
    """Remove a secret; what runs keeps it until it ends."""
    api.remove_secret(name, user=user)
    output.note(f"{name} is forgotten; a function that is to be given it starts no more until it is set again")


def _piped() -> str:
    try:
        value = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"the value on stdin is not UTF-8: byte {error.start}") from error
    return value.removesuffix("\n").removesuffix("\r")


def _asked(name: str) -> str:
    return str(click.prompt(name, hide_input=True, confirmation_prompt=True, err=True))


def _at(instant: int) -> str:
    return dt.datetime.fromtimestamp(instant / 1e6).astimezone().isoformat(" ", "minutes")
