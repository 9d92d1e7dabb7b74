"""`bema package`: the document, from classes to a plan."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from bema.cli import output
from bema.core import settings
from bema.core.errors import Invalid, Refused
from bema.packages import environments
from bema.packages.environments import Environment
from bema.packages.export import DIALECTS, Dialect, MetadataRepo
from bema.packages.files import expanded, is_json
from bema.packages.findings import Finding, Severity
from bema.packages.lint import LintReport, lint, mend
from bema.packages.loader import classes_of
from bema.packages.opackage import OPackage, schema, to_data
from bema.packages.planner import Plan, Wishes, plan
from bema.packages.reader import Document, examine_all, examine_bytes, examine_text, read
from bema.packages.reexport import Merged, reexport
from bema.packages.replicas import Measure
from bema.packages.writer import BOM, replace_text, to_yaml

_PIECE = 64 * 1024  # of stdin, as it goes on to stdout


@click.group()
def command() -> None:
    """Package classes: print, lint and plan the document."""


@click.command("schema")
@click.option("--json", "as_json", is_flag=True, hidden=True, help="It is JSON anyway.")
def schema_command(as_json: bool) -> None:
    """Print the JSON Schema of the document, for editors."""
    output.print_json(schema())


# lint


_STDIN = Path("-")
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


@click.command("lint")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--fix", "fixing", is_flag=True, help="Mend what has one right answer; change nothing else.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@click.option("--known", multiple=True, metavar="PACKAGE", help="A package that is stored already; may be repeated.")
@click.option("--stdin-filename", "called", metavar="NAME", help="What `-` is called; its suffix says YAML or JSON.")
@output.json_option
def lint_command(
    files: tuple[Path, ...], fixing: bool, strict: bool, known: tuple[str, ...], called: str | None, as_json: bool
) -> int:
    """Check documents together; exit 1 where there are errors.

    FILES are documents, folders for the documents below them, patterns such as 'packages/*.yaml', or - for stdin; with
    --fix, what came from stdin is written to stdout, and the findings to stderr.
    """
    piped = _STDIN in files
    if piped and fixing and as_json:
        raise Invalid("--fix of - and --json would both write to stdout", code="usage", fix="Leave out one of them.")
    documents = examine_all(expanded(map(not_python, (file for file in files if file != _STDIN))))
    fixed = [finding for document in documents for finding in _mend(document)] if fixing else []
    if fixed:
        documents = examine_all(Path(document.source.name) for document in documents)
    if piped:
        document, done = _piped(called, fixing)
        documents, fixed = [document, *documents], [*done, *fixed]
    # all in one run: each may depend on, or repeat, what another declares
    reports = lint(documents, known=known, strict=strict)
    errors = sum(report.count(Severity.ERROR) for report in reports)
    warnings = sum(report.count(Severity.WARNING) for report in reports)
    if as_json:
        output.print_json(
            {
                "files": [_as_data(report) for report in reports],
                "errors": errors,
                "warnings": warnings,
                "fixed": len(fixed),
            }
        )
    else:
        for line in (_line(report, finding) for report in reports for finding in report.findings):
            if piped and fixing:
                output.note(line)
            else:
                output.print_text(line)
        counts = (_count(len(documents), "file"), _count(errors, "error"), _count(warnings, "warning"))
        output.note(", ".join(counts) + (f", {len(fixed)} fixed" * fixing))
    return 1 if errors else 0


def _piped(called: str | None, fixing: bool) -> tuple[Document, list[Finding]]:
    """The document on stdin; with `--fix` it goes to stdout, mended or as it came."""
    stdin = sys.stdin.buffer
    data = stdin.read(settings.current().limits.package_document + 1)
    document = examine_bytes(data, called or "-", called.lower().endswith(".json") if called else is_json(data))
    if not fixing:
        return document, []
    source, done = mend(document.source)
    out = sys.stdout.buffer
    if done:
        data = BOM * data.startswith(BOM) + source.text.encode()
        document = examine_text(source)
    out.write(data)
    while more := stdin.read(_PIECE):  # of what is too large to be looked at, nothing is lost
        out.write(more)
    out.flush()
    return document, done


def _mend(document: Document) -> list[Finding]:
    source, done = mend(document.source)
    if done:
        replace_text(Path(source.name), source.text)
    return done


def not_python(file: Path) -> Path:
    if file.suffix == ".py":
        raise Invalid(
            f"{file} is no document but the code of one",
            code="usage",
            fix=f"Export it first: `bema package print {file} --out packages`.",
        )
    return file


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _line(report: LintReport, finding: Finding) -> str:
    severity = output.style(finding.severity.value, fg=_COLOURS[finding.severity])
    where = f"{report.document.source.name}:{finding.line}:{finding.column}"
    path = "" if finding.path == "." else f" ({finding.path})"
    fix = f" fix: {finding.fix}" if finding.fix else ""
    return f"{where}: {severity} {finding.rule}: {finding.message}{path}{fix}"


def _as_data(report: LintReport) -> dict[str, object]:
    package = report.document.package
    return {
        "file": report.document.source.name,
        "package": package.name if package else None,
        "findings": [finding.as_data() for finding in report.findings],
    }


# plan


@click.command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--env", "envs", multiple=True, metavar="NAME[=0.99|=READY/NODES]", help="An environment; may be repeated."
)
@click.option("--class", "classes", multiple=True, metavar="KEY", help="Only this class; may be repeated.")
@click.option("--image", "images", multiple=True, metavar="FUNCTION=REF", help="Another image for this deployment.")
@click.option(
    "--measured",
    multiple=True,
    metavar="FUNCTION=RPS[,MILLICORES[,P99_MS]]",
    help="What one replica does, to size for throughput.",
)
@click.option("--seed", type=int, default=0, help="Of the ids; the same seed gives the same ids.", show_default=True)
@output.json_option
def plan_command(
    file: Path,
    envs: tuple[str, ...],
    classes: tuple[str, ...],
    images: tuple[str, ...],
    measured: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> int:
    """Plan a document's deployments; exit 1 where what it requires cannot be had."""
    package = read(not_python(file))
    known = [environments.parse(text) for text in envs] or _mentioned(package)
    _once("--env", [environment.name for environment in known])
    if not envs:
        output.note(f"note: no --env: assuming {', '.join(f'{e.name} at {e.availability:g}' for e in known)}")
    wishes = Wishes(_pairs("--image", images), _measures(measured), seed)
    plans = plan(package, known, classes=classes, wishes=wishes)
    conflicts = [conflict for found in plans for conflict in found.conflicts]
    if as_json:
        output.print_json(_plan_data(package, plans))
    else:
        _print(plans)
        for note in (note for found in plans for note in found.notes):
            output.note(f"note: {note}")
        for conflict in conflicts:
            output.note(f"{output.style('conflict', fg='red')}: {conflict}")
    return 1 if conflicts else 0


def _mentioned(package: OPackage) -> list[Environment]:
    """Without --env: those the document names, else one, each at the default availability."""
    names = [name for d in package.deployments for name in (*d.target_envs, *d.available_envs)]
    return [environments.parse(name) for name in dict.fromkeys(names or ["local"])]


def _plan_data(package: OPackage, plans: list[Plan]) -> dict[str, object]:
    """The deployments as a document the platform takes, and beside them what they rest on."""
    return {
        "name": package.name,
        "version": package.version,
        "deployments": [to_data(found.deployment) for found in plans],
        "plans": [found.as_data() for found in plans],
    }


def _print(plans: list[Plan]) -> None:
    headings = ("DEPLOYMENT", "CLASS", "REPLICAS", "AVAILABILITY", "TARGET", "ENVIRONMENTS", "FUNCTIONS")
    rows = [
        (
            found.deployment.key,
            found.deployment.class_key,
            found.replicas,
            f"{found.reached:.6g}",
            f"{found.target:g}",
            ",".join(unit["target_env"] for unit in found.units),
            ",".join(spec.function_key for spec in found.deployment.functions) or "-",
        )
        for found in plans
    ]
    output.print_table(headings, rows)


def _measures(measured: tuple[str, ...]) -> dict[str, Measure]:
    return {key: _measure(key, said) for key, said in _pairs("--measured", measured).items()}


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [_pair(text) for text in texts]
    _once(option, [key for key, _ in pairs])
    return dict(pairs)


def _once(option: str, names: list[str]) -> None:
    """Of two values for one name neither is more right than the other."""
    for name, times in Counter(names).items():
        if times > 1:
            raise Invalid(f"{option} says two things of {name}", code="usage", fix="Say one.")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise Invalid(f"{text!r} is not FUNCTION=VALUE", code="usage", fix="Write it like counter.incr=VALUE.")
    return key, value


def _measure(key: str, said: str) -> Measure:
    try:
        numbers = [float(part) for part in said.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(0 <= n < float("inf") for n in numbers) or numbers[0] <= 0:
        raise Invalid(
            f"--measured {key}={said}: not RPS[,MILLICORES[,P99_MS]]",
            code="usage",
            fix=f"Write --measured {key}=120,250,80.",
        )
    return Measure(*numbers)


# print


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


for _verb in (print_command, lint_command, plan_command, schema_command):
    command.add_command(_verb)
