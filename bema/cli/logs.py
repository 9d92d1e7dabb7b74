"""`bema logs`: what the instances of a deployment wrote."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import click

from bema.cli import api, output
from bema.cli.options import seconds_of
from bema.core.visible import visible, visible_line

_COLOURS = {"stderr": "yellow", "bema": "blue"}
_MORE = "\n    | "
_LEVELS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


@click.command()
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Stay and print new lines as they come.")
@click.option("--tail", "-n", type=click.IntRange(min=0), default=100, show_default=True, help="How many past lines.")
@click.option("--since", metavar="TIME", help="Only what is not older: a number with s, m, h, d or w.")
@click.option("--version", default="", help="Only lines of this version, v3 say.")
@click.option("--instance", default="", help="Only lines of this instance.")
@click.option("--timestamps", is_flag=True, help="Show the date and the offset from UTC of each line.")
@output.json_option
def command(
    name: str,
    follow: bool,
    tail: int,
    since: str | None,
    version: str,
    instance: str,
    timestamps: bool,
    as_json: bool,
) -> None:
    """Print the log of a deployment.

    NAME is the name or the id that `bema ls` shows. Ctrl-C ends following; the service runs on.
    """
    begin = 0 if since is None else time.time_ns() // 1000 - seconds_of(since, "--since") * 1_000_000
    found = api.deployment(name)["id"]
    for record in api.logs(found, tail=tail, follow=follow, since=begin, version=version, instance=instance):
        if as_json:
            output.print_json_line(record)
        else:
            output.print_text(line_of(record, timestamps=timestamps))


def line_of(record: dict[str, Any], *, timestamps: bool = False) -> str:
    """A record as a person reads it: when, which instance, how bad, what, and the trace; what is not stdout is marked.

    One record, one line of ours: lines of its own are marked, so that none passes for another record.
    """
    stream = visible_line(str(record.get("stream", "")))
    when = _instant(record.get("ts", 0))
    mark = output.style(f"{stream:<6}", fg=_COLOURS[stream]) if stream in _COLOURS else f"{stream:<6}"
    clock = when.isoformat(timespec="milliseconds") if timestamps else f"{when:%H:%M:%S}.{when.microsecond // 1000:03}"
    level = visible_line(str(record.get("level", "info"))).upper()
    shown = output.style(f"{level:<7}", fg=_LEVELS[level]) if level in _LEVELS else f"{level:<7}"
    trace = f"  trace={visible_line(str(record['trace_id']))}" if record.get("trace_id") else ""
    # every field is a script's: a line that is a record of ours may set its level and its trace
    instance = visible_line(str(record.get("instance", "")))[-4:]
    event = _MORE.join(visible(str(record.get("event", ""))).split("\n"))
    return f"{clock} {instance} {mark} {shown} {event}{trace}"


def _instant(ts: Any) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(ts / 1_000_000, dt.UTC).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):  # no clock of ours wrote it
        return dt.datetime.fromtimestamp(0, dt.UTC).astimezone()
