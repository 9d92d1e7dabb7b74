"""Makes the reference pages from the tables and docstrings: `python3 dev.py docs`. A test finds a page that is out of date."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click

import bema
from bema.cli import COMMANDS, cli
from bema.cli.plugins import FACTORIES
from bema.core.limits import LIMITS
from bema.core.problems import PROBLEMS
from bema.core.settings import SETTINGS
from bema.gateway.control.operations import OPERATIONS, Operation
from bema.parts import Factory
from bema.parts.registry import variable

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- made by docs/generate.py; do not edit -->\n\n"


def errors() -> str:
    rows = (
        f"| `{code}` | {row.says} | {row.fix} | {row.http} | {row.grpc} | {row.exit} |"
        for code, row in PROBLEMS.items()
    )
    return page(
        "Errors",
        "Every failure has a code. It decides the status that leaves each door; `bema explain CODE` prints its row.",
        "| code | meaning | remedy | HTTP | gRPC | exit |\n|---|---|---|---|---|---|",
        *rows,
    )


def limits() -> str:
    rows = (
        f"| `{row.name}` | {row.default:,} | {row.unit} | {row.least:,} to {row.most:,} | {row.enforced_by} | {row.says} |"
        for row in LIMITS.values()
    )
    return page(
        "Limits",
        "Every bound, and the room that keeps it. Each is a setting too: `limits.NAME`, `BEMA_LIMITS__NAME`; a value outside its"
        " range is refused where it is read.",
        "| name | default | unit | may be | kept by | what it bounds |\n|---|---|---|---|---|---|",
        *rows,
    )


def settings() -> str:
    rows = (
        f"| `{row.name}` | `{row.variable}` | {f'`{row.default}`' if row.default != '' else '*see below*'} | {row.says} |"
        for row in SETTINGS.values()
    )
    return page(
        "Settings",
        "The nearest origin wins: flag, `BEMA_*`, `.env`, `bema.toml`, `[tool.bema]` of `pyproject.toml`, default. The three files are those of"
        " the working directory, or of `BEMA_SETTINGS_DIR`. `bema config show --origin` tells what holds and who said so.",
        "| setting | variable | default | meaning |\n|---|---|---|---|",
        *rows,
        "",
        "`state_dir` is `$BEMA_STATE_DIR`, else the `.bema` of the working directory or of the nearest folder above it, if it is"
        " yours and a platform runs on it, else `$XDG_STATE_HOME/bema`, else `~/.local/state/bema`. With an empty `BEMA_STATE_DIR`"
        " no `.bema` is looked for. On the first two, processes meet in their `run`. A process stays where it was when it"
        " started: one that was started before the platform in the same checkout has to be started again to meet it.",
        "",
        "Without `status_port` a process"
        " has no [status pages](../services.md#status-of-a-process). What has no section cannot be set in a file: it holds in every"
        " process, also in those that read none: it is asked of the environment before any file is read.",
    )


def commands() -> str:
    parts = []
    for name in COMMANDS:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        parts += [part for path, command in leaves(found, f"bema {name}") for part in command_page(path, command)]
    return page("Commands", "Every command and option, as `--help` prints them.", *parts)


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, f"{path} {name}")
    else:
        yield path, command


def command_page(path: str, command: click.Command) -> list[str]:
    # a command keeps the help option of its first context: give it the one that it has below `bema`
    names = cli.context_settings["help_option_names"]
    context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100, help_option_names=names)
    return [f"## {path}", "", "```text", command.get_help(context), "```", ""]


def http() -> str:
    return page(
        "HTTP",
        "The control API, as the gateway serves it; `GET /openapi.json` has the schemas.",
        *map(operation, OPERATIONS),
    )


def operation(row: Operation) -> str:
    items = [f"header `{name}`: {says}" for name, says in row.header]
    items += [f"query `{name}`: {says}" for name, _, says in row.query]
    items += [f"body: `{row.takes.__name__}`"] if row.takes else []
    items += [f"or `{media}`: `{kind.__name__}`" for media, kind in row.forms]
    items += [f"{status}: {answered(body)}" for status, body in row.answers.items()]
    says = row.says + (" Needs no token." if row.open else "")
    return "\n".join((f"## {row.method} {row.path}\n", says, "", *(f"- {item}" for item in items), ""))


def answered(body: Any) -> str:
    if body is None:
        return "no body"
    return f"`{body}`" if isinstance(body, str) else f"`{body.__name__}`" if inspect.isclass(body) else "a JSON object"


def api() -> str:
    names = [name for name in bema.__all__ if not name.startswith("__")]
    parts = [part for name in names for part in described(f"bema.{name}", getattr(bema, name))]
    return page("Python", "The public names of `import bema`.", *parts)


def parts() -> str:
    loaded = [(row.partition(":")[0], _named(row)) for row in FACTORIES]
    return page(
        "Parts",
        "Every kind of part that can be replaced, what it has to keep, and what bema comes with. [Plugins](../plugins.md) tells how."
        " A name marked * is in use where nobody asks for another.",
        *(line for module, factory in loaded for line in part(module, factory)),
    )


def _named(reference: str) -> type[Factory[Any]]:
    module, _, name = reference.partition(":")
    found: type[Factory[Any]] = getattr(importlib.import_module(module), name)
    return found


def part(module: str, factory: type[Factory[Any]]) -> Iterator[str]:
    promised, default = factory.base(), factory.registry.default
    yield f"## {factory.group}\n"
    yield f"`{module}.{promised.__name__}`. {inspect.cleandoc(promised.__doc__ or '')}\n"
    entries = [entry for found in factory.registry.table().values() for entry in found if not entry.path]
    for entry in sorted(entries, key=lambda entry: entry.name):
        yield f"- `{entry.name}`{' *' if entry.name == default else ''}: `{entry.reference}`"
    yield f"- another: `{variable(factory.group)}=NAME`\n" if default else ""
    for name, member in vars(promised).items():
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) and not name.startswith("_"):
            yield from documented(name, function, method=True)


def described(name: str, found: Any) -> Iterator[str]:
    yield f"## {name}\n"
    if inspect.isclass(found):
        yield from documented(f"class {found.__name__}", found)
        for attribute, member in vars(found).items():
            if not attribute.startswith("_") and callable(member) and inspect.getdoc(member):
                yield from documented(f"{found.__name__}.{attribute}", member, method=True)
    elif callable(found):
        yield from documented(found.__name__, found)


def documented(name: str, found: Callable[..., Any], *, method: bool = False) -> Iterator[str]:
    kind = "async " if inspect.iscoroutinefunction(found) else ""
    yield f"```text\n{kind}{name}{signature(found, method=method)}\n```\n"
    # a class does not show the text of its base as its own
    yield inspect.cleandoc(found.__doc__ or "") + "\n"


class Plain:
    """An annotation that was kept as text, shown without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def signature(found: Callable[..., Any], *, method: bool = False) -> str:
    """As it is called: every parameter, without what a method is bound to."""
    try:
        read = inspect.signature(found)
    except (TypeError, ValueError):
        return ""
    parameters = [p.replace(annotation=plain(p.annotation), default=named(p.default)) for p in read.parameters.values()]
    if method and parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    return str(read.replace(parameters=parameters, return_annotation=plain(read.return_annotation)))


def named(default: Any) -> Any:
    # a function shows the address at which it lies, which is another in each process
    return Plain(default.__name__) if inspect.isfunction(default) else default


def plain(annotation: Any) -> Any:
    # a class of ours by its name, whichever module it was asked of
    return (
        Plain(re.sub(r"\b(?!asyncio)[a-z_]+\.(?=[A-Z])", "", annotation)) if isinstance(annotation, str) else annotation
    )


def page(title: str, says: str, *lines: str) -> str:
    return f"{MADE}# {title}\n\n{says}\n\n" + "\n".join(lines).rstrip() + "\n"


def values() -> str:
    """From the tables that the tests send through a server."""
    matrix: Any = importlib.import_module("tests.wire.values.matrix")
    evolution: Any = importlib.import_module("tests.wire.values.evolution")
    says = (Path(__file__).parent / "values.txt").read_text(encoding="utf-8")
    table, ages = "\n".join(what_travels(matrix)), "\n".join(of_two_ages(evolution))
    return MADE + says.replace("{{what travels}}", table).replace("{{two ages}}", ages)


def what_travels(matrix: Any) -> Iterator[str]:
    counts = Counter(cell for row in matrix.ROWS for cell in row.cells)
    yield (
        f"{len(matrix.ROWS)} types in {len(matrix.COLUMNS)} ways are {sum(counts.values())} cells: {counts['equal']} *equal*,"
        f" {counts['plain']} *plain*, {counts['call']} refused at the *call*, {counts['declaration']} refused at the *declaration*."
    )
    for kind, rows in groupby(matrix.ROWS, key=lambda row: row.kind):
        yield f"\n### {kind[0].upper()}{kind[1:]}\n"
        yield "| declared | " + " | ".join(f"{caller}: {way}" for caller, way in matrix.COLUMNS) + " | refused |"
        yield "|---" * (2 + len(matrix.COLUMNS)) + "|"
        for row in rows:
            refused = ", ".join(code(repr(value)) for value in row.wrong if len(repr(value)) < 50)
            yield f"| {code(row.shown)} | {' | '.join(row.cells)} | {refused} |"
    yield "\nThe exceptions, and why:\n"
    yield from (f"- {row.shown}: {row.why}." for row in matrix.ROWS if row.why)


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def of_two_ages(evolution: Any) -> Iterator[str]:
    yield "| what is changed | " + " | ".join(f"{side}: {way}" for side, way in evolution.SIDES) + " |"
    yield "|---" * (1 + len(evolution.SIDES)) + "|"
    for change in evolution.CHANGES:
        yield f"| {code(change.says)[1:-1]} | " + " | ".join(change.cells) + " |"
    yield "\n| what is changed | old caller, new service | new caller, old service |\n|---|---|---|"
    for change in evolution.SIGNATURES:
        yield f"| {change.says} | " + " | ".join(change.cells) + " |"


PAGES: dict[str, Callable[[], str]] = {
    "errors": errors,
    "limits": limits,
    "settings": settings,
    "commands": commands,
    "http": http,
    "python": api,
    "parts": parts,
    "values": values,
}
BESIDE = ("values",)
"""Pages of the guide; the others are the reference."""


def place(name: str) -> Path:
    return (FOLDER.parent if name in BESIDE else FOLDER) / f"{name}.md"


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    sys.path.insert(0, str(ROOT))  # of the tests, whose tables are shown
    for name, make in PAGES.items():
        place(name).write_text(make(), encoding="utf-8")
    sys.stdout.write(f"made {len(PAGES)} pages in {FOLDER.parent}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
