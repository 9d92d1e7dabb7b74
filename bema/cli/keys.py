"""`bema keys`: the credentials with which others than the local user reach the control API."""

from __future__ import annotations

import datetime as dt
import time

import click

from bema.cli import api, output
from bema.cli.options import seconds_of


@click.group()
def command() -> None:
    """Keys of the control API: make, list or revoke them."""


@command.command("add")
@click.argument("name")
@click.option("--user", default="", help="Who its holder is; NAME, if left out.")
@click.option("--admin", is_flag=True, help="Its holder may do everything, for every user.")
@click.option("--expires", metavar="TIME", help="When it ends: a number with s, m, h, d or w. Without one, never.")
@output.json_option
def add(name: str, user: str, admin: bool, expires: str | None, as_json: bool) -> None:
    """Make a key and print it, this once."""
    made = api.add_key(
        name, user=user, admin=admin, expires_in=None if expires is None else seconds_of(expires, "--expires")
    )
    if as_json:
        output.print_json(made)
        return
    output.print_text(made["key"])
    what = "an administrator" if made["admin"] else f"the user {made['user']}"
    output.note(f"{name} is a key of {what}, {_ends(made)}. It is not shown again; `bema keys revoke {name}` ends it")


@command.command("ls")
@output.json_option
def ls(as_json: bool) -> None:
    """List keys: whose they are, and how long."""
    found = api.keys()
    if as_json:
        output.print_json(found)
        return
    rows = [(k["name"], k["user"], "admin" if k["admin"] else "user", _at(k["created"]), _ends(k)) for k in found]
    output.print_table(("NAME", "USER", "KIND", "CREATED", "ENDS"), rows)


@command.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """Let nobody in with a key any more."""
    api.revoke_key(name)
    output.note(f"{name} lets nobody in any more")


def _ends(key: api.Json) -> str:
    if not key["expires"]:
        return "without an end"
    return f"{'over since' if key['expires'] < time.time_ns() // 1000 else 'until'} {_at(key['expires'])}"


def _at(instant: int) -> str:
    return dt.datetime.fromtimestamp(instant / 1e6).astimezone().isoformat(" ", "minutes")
