"""What the tests of packages share: the fixtures with their verdicts, and short ways to read and lint a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from bema.packages.lint import LintReport, lint
from bema.packages.nodes import Source
from bema.packages.reader import examine_text

DATA = Path(__file__).parents[1] / "data" / "packages"
_ROW = re.compile(r"^\| (\S+) \| (.*?) \| (accepted|REJECTED: .*?) \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)


class Verdict(NamedTuple):
    """A row of INDEX.md."""

    name: str
    parse: str
    derive: str
    business: str
    manager: str

    @property
    def readable(self) -> bool:
        return self.parse == "accepted"

    @property
    def sound(self) -> bool:
        return self.readable and (self.derive, self.business, self.manager) == ("ok", "ok", "ok")

    @property
    def file(self) -> Path:
        return next(DATA.glob(f"*/{self.name}"))


def verdicts() -> list[Verdict]:
    rows = [Verdict(name, *rest) for name, _, *rest in _ROW.findall((DATA / "INDEX.md").read_text())]
    return [row for row in rows if any(DATA.glob(f"*/{row.name}"))]


@pytest.fixture(params=verdicts(), ids=lambda row: row.name)
def verdict(request: pytest.FixtureRequest) -> Verdict:
    row: Verdict = request.param
    return row


def check(text: str, *, is_json: bool = False, strict: bool = False) -> LintReport:
    """The report of one text."""
    (report,) = lint([examine_text(Source(text, "p.json" if is_json else "p.yaml", is_json))], strict=strict)
    return report


def rules(text: str, *, is_json: bool = False) -> list[str]:
    return [finding.rule for finding in check(text, is_json=is_json).findings]
