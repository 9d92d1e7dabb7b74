"""`bema package lint`: what is wrong with documents, and what the platform would silently drop."""

from __future__ import annotations

from pathlib import Path

import click

from bema.cli import output
from bema.core.errors import Invalid
from bema.packages.files import replace_text
from bema.packages.findings import Finding, Severity
from bema.packages.fixes import mend
from bema.packages.lint import LintReport, lint
from bema.packages.reader import Document, examine_all

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


@click.command("lint")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--fix", "fixing", is_flag=True, help="Mend what has one right answer; change nothing else.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@click.option("--known", multiple=True, metavar="PACKAGE", help="A package that is stored already; may be repeated.")
@output.json_option
def lint_command(files: tuple[Path, ...], fixing: bool, strict: bool, known: tuple[str, ...], as_json: bool) -> int:
    """Check documents together; exit 1 where there are errors."""
    files = tuple(dict.fromkeys(map(not_python, files)))
    documents = examine_all(files)
    fixed = [finding for document in documents for finding in _mend(document)] if fixing else []
    if fixed:
        documents = examine_all(files)
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
        for report in reports:
            for finding in report.findings:
                output.print_text(_line(report, finding))
        counts = (_count(len(files), "file"), _count(errors, "error"), _count(warnings, "warning"))
        output.note(", ".join(counts) + (f", {len(fixed)} fixed" * fixing))
    return 1 if errors else 0


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


def _mend(document: Document) -> list[Finding]:
    source, done = mend(document.source)
    if done:
        replace_text(Path(source.name), source.text)
    return done


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
