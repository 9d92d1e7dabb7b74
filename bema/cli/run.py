"""`bema run`: a file's service, run by us; the same start() as `python3 FILE`, on uvloop where that is installed."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from bema.cli import output
from bema.core.errors import BemaError, Invalid
from bema.deploy import script_environment
from bema.deploy.sources import entry
from bema.runtime.process import inheritance, tracing
from bema.sdk import spec
from bema.sdk.event_loop import loop_factory
from bema.sdk.lifecycle import start

MODULE = "__bema_script__"


@click.command()
@click.argument("target", metavar="FILE[:CLASS]")
@click.argument("arguments", nargs=-1)
@click.option("--here", is_flag=True, help="Use the Python that runs bema, whatever the file's PEP 723 block asks for.")
def command(target: str, arguments: tuple[str, ...], here: bool) -> None:
    """Run the service of a file.

    CLASS may be left out where the file has one service. ARGUMENTS are what the file sees in sys.argv. What a PEP 723 block
    of the file asks for, and is not installed here, is installed once into an environment of its own.
    """
    if os.environ.get(inheritance.VARIABLE):  # `bema dev` started us, and its terminal is our log
        tracing.log_lines(formatter=tracing.TextFormatter())
    file, name = split(target)
    if not here:
        script_environment.enter(file, ["run", "--here", "--", target, *arguments], output.note)
    module = load(file, arguments)
    service = service_of(module, name, file)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(start(service))
    except BemaError:
        raise
    except Exception as error:
        raise _theirs(f"{service.__qualname__} failed: {type(error).__name__}: {error}", error) from error


def split(target: str) -> tuple[Path, str]:
    """The file and the class, which may be empty, of FILE[:CLASS]."""
    file, colon, name = target.rpartition(":")
    if not colon or Path(target).is_file():
        return Path(target), ""
    return Path(file), name


def load(file: Path, arguments: tuple[str, ...] = ()) -> ModuleType:
    """The file as a module; `Invalid` shows why it cannot be one."""
    try:
        source = file.read_bytes()
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror}", code="not_found", fix="Name a file that can be read.") from error
    # not as `__main__`: its own main block must not start it a second time
    module = ModuleType(MODULE)
    module.__file__ = str(file)
    # where annotations, dataclasses and pickle look for a class's names
    sys.modules[MODULE] = module
    sys.path.insert(0, str(file.resolve().parent))
    sys.argv = [str(file), *arguments]
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        where = f"line {error.lineno}, column {error.offset}"
        raise Invalid(f"{file}, {where}: {error.msg}", code="syntax_error", line=error.lineno) from error
    except BemaError:
        raise
    except Exception as error:
        raise _theirs(f"{file} failed when it was loaded: {type(error).__name__}: {error}", error) from error
    return module


def service_of(module: ModuleType, name: str, file: Path) -> type[Any]:
    """The class to run: the one that is named, or the only one."""
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, type) or not hasattr(found, spec.SERVICE):
            raise Invalid(f"{file} has no service {name!r}", code="entry_not_found", fix=f"It has {_listed(module)}.")
        return found
    # counted in the module, not in its text: a class may be decorated in any way
    services = _services(module)
    if not services:
        raise _no_service(file)
    if len(services) > 1:
        fix = f"Name one as {file}:CLASS. It has {_listed(module)}."
        raise Invalid(f"{file} has {len(services)} services", code="entry_not_found", fix=fix)
    return services[0]


def _no_service(file: Path) -> Invalid:
    """What the file is instead, and how that is run."""
    found = entry.inspect(file.read_bytes())
    name = found.get("name")
    match found.get("kind"):
        case "app":
            what = f"it holds an app, {name!r}"
            by_hand = f"`uvicorn {file.stem}:{name}` runs it by hand where it is an ASGI app"
        case "mcp":
            what, by_hand = (
                f"it holds an MCP server, {name!r}",
                f"`python3 {file}` runs it by hand where it starts itself",
            )
        case _:
            what, by_hand = "it is a program", f"`python3 {file}` runs it by hand"
    return Invalid(
        f"{file} has 0 services: {what}",
        code="entry_not_found",
        fix=f"`bema deploy {file}` serves it, and {by_hand}. A service is a class with @service(...).",
    )


def _services(module: ModuleType) -> list[type[Any]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        # an imported class is another service's, and so is the mark that a subclass inherits
        and value.__module__ == module.__name__
        and spec.SERVICE in vars(value)
        and not spec.mark_of(value).abstract
    ]


def _listed(module: ModuleType) -> str:
    return ", ".join(sorted(service.__qualname__ for service in _services(module))) or "none"


def _theirs(message: str, error: Exception) -> Invalid:
    """A failure of the user's code, shown with its own traceback."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return Invalid(message, fix="The traceback above is of your code.", log=lines)
