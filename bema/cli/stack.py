"""`bema stack`: where an instance's threads and tasks stand, with the lines of its source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from bema.cli import api, output
from bema.core.visible import visible_line


@click.command()
@click.argument("name")
@click.option("--version", default="", help="One of that version, such as v3.")
@click.option("--instance", default="", help="The one of that id, as `bema ls` shows it.")
@output.json_option
def command(name: str, version: str, instance: str, as_json: bool) -> None:
    """Where the threads and tasks of a deployment stand.

    NAME is the name or the id that `bema ls` shows. The script is neither changed nor stopped for it.
    """
    found = api.stack(api.deployment(name)["id"], version=version, instance=instance)
    if as_json:
        output.print_json(found)
        return
    for line in lines_of(found):
        output.print_text(line)
    if found.get("held"):
        output.note("C code holds the interpreter: neither its tasks nor the names of its threads can be told")


def lines_of(stack: dict[str, Any]) -> Iterator[str]:
    """The threads, then the tasks, each from its innermost frame on; lines of the script's own files are marked."""
    yield visible_line(f"instance {stack.get('instance', '')} {stack.get('version', '')}")
    for thread in stack.get("threads", ()):
        yield from _headed(
            f"thread {thread['name']}" + (", its event loop waits" if thread.get("idle") else ""), thread
        )
    for task in stack.get("tasks", ()):
        running = ", running" if task.get("running") else ""
        waits = f", waits for {task['waits_for']}" if task.get("waits_for") else ""
        yield from _headed(f"task {task['name']}{running}{waits}", task)


def _headed(heading: str, told: dict[str, Any]) -> Iterator[str]:
    yield output.style(visible_line(heading), bold=True)
    for frame in told.get("frames", ()):
        own = bool(frame.get("own"))
        place = visible_line(f"{frame['file']}:{frame['line']} in {frame['function']}")
        yield f"  {'>' if own else ' '} " + (output.style(place, fg="green") if own else place)
        if frame.get("text"):
            yield f"      {visible_line(frame['text'])}"
