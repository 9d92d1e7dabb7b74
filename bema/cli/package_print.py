"""`bema package print`: classes as a document, or a document as the model reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from bema.cli import output
from bema.core.errors import Invalid, Refused
from bema.packages.export import DIALECTS, Dialect, MetadataRepo
from bema.packages.files import replace_text
from bema.packages.loader import classes_of
from bema.packages.opackage import to_data
from bema.packages.reader import read
from bema.packages.reexport import Merged, reexport
from bema.packages.writer import to_yaml

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


@click.command("print")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--package", "name", help="Only the package of this name.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write NAME.yaml there, keeping edits.")
@click.option("--prune", is_flag=True, help="With --out: remove what is no longer in the code.")
@click.option("--dialect", type=click.Choice(DIALECTS), default="current", help="Of the model.", show_default=True)
@output.json_option
def print_command(file: Path, name: str | None, out: Path | None, prune: bool, dialect: Dialect, as_json: bool) -> None:
    """Print the packages of FILE.py, or a document as the platform reads it."""
    if file.suffix != ".py":
        if name is not None or out is not None or prune or dialect != "current":
            raise Invalid(
                f"{file} is a document: --package, --out, --prune and --dialect are for FILE.py", code="usage"
            )
        _print_document(file, as_json)
        return
    repo = MetadataRepo(*classes_of(file))
    if out is not None:
        _write(repo.export_pkg(name, dialect), out, prune, as_json)
    elif as_json:
        documents = list(repo.export_pkg(name, dialect).values())
        output.print_json(documents[0] if len(documents) == 1 else documents)
    else:
        click.echo(repo.print_pkg(name, dialect), nl=False)


def _print_document(file: Path, as_json: bool) -> None:
    data = to_data(read(file))
    if as_json:
        output.print_json(data)
    else:
        click.echo(to_yaml(data), nl=False)


def _write(documents: dict[str, dict[str, Any]], folder: Path, prune: bool, as_json: bool) -> None:
    for name in documents:
        if not _FILE_NAME.fullmatch(name):
            raise Invalid(f"package name {name!r} cannot be the name of a file", fix="Use A-Z a-z 0-9 . _ -")
    reports = []
    files = {folder / f"{name}.yaml": document for name, document in documents.items()}
    # all are merged before the first is written: one that cannot be edited leaves the others as they were
    for file, merged in [(file, _merged(file, document, prune)) for file, document in files.items()]:
        same = file.exists() and not (merged.added or merged.changed or (prune and merged.gone))
        if not same:
            replace_text(file, merged.text)
        gone = "removed" if prune else "gone from the code, kept (--prune removes it)"
        for what, changes in (("added", merged.added), ("changed", merged.changed), (gone, merged.gone)):
            for change in changes:
                output.note(f"{file}: {what}: {change}")
        output.note(f"{file}: {'unchanged' if same else 'written'}")
        reports.append(
            {"file": str(file), "added": merged.added, "changed": merged.changed, "gone": merged.gone, "pruned": prune}
        )
    if as_json:
        output.print_json(reports)


def _merged(file: Path, document: dict[str, Any], prune: bool) -> Merged:
    """The document as a new file, or what is there brought up to it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        present = file.read_bytes() if file.exists() else None
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}", code="state_unwritable") from error
    if present is None:
        return Merged(to_yaml(document), (), (), ())
    read(file)
    return reexport(present.decode().removeprefix("\ufeff"), document, str(file), prune=prune)
