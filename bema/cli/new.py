"""`bema new`: a first file that works. Law: what is written is run by the tests as it is."""

from __future__ import annotations

from pathlib import Path

import click

from bema.cli import output
from bema.core.errors import Conflict, Invalid
from bema.core.naming import NAME
from bema.sdk.codegen.client import class_name

SERVICE = """\
import asyncio
from collections.abc import AsyncIterator

from bema import endpoint, serve, service


@service(name="{name}")
class {cls}:
    @endpoint()
    async def greet(self, name: str) -> str:
        return f"hello {{name}}"

    @endpoint()
    async def count(self, to: int = 3) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number


if __name__ == "__main__":
    asyncio.run(serve({cls}))
"""
API = """\
# /// script
# requires-python = ">=3.11"
# dependencies = ["fastapi>=0.115,<1"]
# ///
from fastapi import FastAPI

app = FastAPI(title="{name}")


@app.get("/greet/{{name}}")
async def greet(name: str) -> dict[str, str]:
    return {{"greeting": f"hello {{name}}"}}
"""
TOOLS = '''\
# /// script
# requires-python = ">=3.11"
# dependencies = ["mcp>=2.3,<3"]
# ///
from mcp.server import MCPServer

mcp = MCPServer("{name}")


@mcp.tool()
def add(a: float, b: float) -> float:
    """The sum of two numbers."""
    return a + b
'''
TEMPLATES = {
    "service": (SERVICE, "bema dev {file}", "bema call default.{name}.greet name=ada"),
    "api": (API, "bema up", "bema deploy {file}"),
    "tools": (TOOLS, "bema up", "bema deploy {file}"),
}


@click.command()
@click.argument("name")
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="service", help="What the file is to hold.")
def command(name: str, template: str) -> None:
    """Write a first service, API or set of tools to a new file.

    NAME is what it is called; the file is NAME.py, in this folder.
    """
    if not NAME.match(name):
        raise Invalid(f"{name!r} is not a name: [A-Za-z][A-Za-z0-9_-]*, at most 63 characters", code="bad_name")
    text, *hints = TEMPLATES[template]
    # no module's name has a '-', and others may want to import it
    file = Path(f"{name.replace('-', '_')}.py")
    try:
        # a file of that name is somebody's work
        with file.open("x", encoding="utf-8") as out:
            out.write(text.format(name=name, cls=class_name(name)))
    except FileExistsError as error:
        raise Conflict(f"{file} is there already", fix="Choose another name.") from error
    except OSError as error:
        raise Invalid(f"{file} cannot be written: {error.strerror}", code="state_unwritable") from error
    output.note("\n".join((f"wrote {file}; next", *(f"  {hint.format(file=file, name=name)}" for hint in hints))))
