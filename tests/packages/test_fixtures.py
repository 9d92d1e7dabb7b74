"""Every document under data/packages has the verdict that the Rust model gave it."""

from __future__ import annotations

import json
import re

import pytest

from bema.packages.findings import Severity, Unreadable
from bema.packages.lint import RULES, lint
from bema.packages.opackage import to_data
from bema.packages.reader import examine, read

from .conftest import DATA, verdicts

KNOWN = {rule.id for rule in RULES}
PLACE = re.compile(r"at line (\d+) column (\d+)")
PATH = re.compile(r"REJECTED: ([a-z_]+(?:\[\d+\])?(?:\.[A-Za-z_]+(?:\[\d+\])?)*): ")


def test_every_file_has_a_row():
    rows = {row.name for row in verdicts()}
    files = {file.name for folder in ("accept", "reject") for file in (DATA / folder).iterdir()}
    assert rows == files


def test_the_verdict_is_that_of_the_model(verdict):
    document = examine(verdict.file)
    assert (document.package is not None) is verdict.readable
    for problem in document.problems:
        assert problem.rule in KNOWN
        assert problem.line >= 1
        assert problem.message


def test_a_refusal_stands_where_the_model_says(verdict):
    if verdict.readable:
        read(verdict.file)
        return
    with pytest.raises(Unreadable) as refused:
        read(verdict.file)
    place = PLACE.search(verdict.parse)
    if place and verdict.file.suffix == ".yaml":  # serde_json points behind the value, we point at it
        assert [refused.value.finding.line, refused.value.finding.column] == [int(n) for n in place.groups()]
    path = PATH.match(verdict.parse)
    if path:
        assert refused.value.finding.path == path.group(1)


def test_a_print_equals_that_of_the_model(verdict):
    golden = DATA / "golden" / f"{verdict.name}.json"
    if golden.exists():
        assert to_data(read(verdict.file)) == json.loads(golden.read_text())
    else:
        assert not verdict.sound


def test_lint_refuses_what_any_layer_would(verdict):
    (report,) = lint([examine(verdict.file)])
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    assert bool(errors) is not verdict.sound
    assert all(finding.rule in KNOWN and finding.line >= 1 and finding.path for finding in report.findings)


def test_the_same_file_gives_the_same_findings(verdict):
    assert lint([examine(verdict.file)])[0].findings == lint([examine(verdict.file)])[0].findings


def test_a_print_of_the_model_reads_as_itself():
    """Read again, as JSON, and nothing of it is dropped."""
    for golden in sorted((DATA / "golden").iterdir()):
        document = examine(golden)
        assert document.package is not None, golden.name
        assert document.notes == (), golden.name
        assert to_data(document.package) == json.loads(golden.read_text())
