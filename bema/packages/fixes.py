"""`--fix`: edits of the text itself, so that nothing but the mended places changes."""

from __future__ import annotations

from collections.abc import Iterable

from bema.packages.findings import Edit, Finding, Severity
from bema.packages.lint import lint
from bema.packages.nodes import Source
from bema.packages.reader import examine_text

_ROUNDS = 5  # a mended slip can uncover the next one


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with the edits made; of two that overlap, the first counts."""
    parts: list[str] = []
    end = 0
    for edit in sorted(set(edits)):
        if edit.start >= end:
            parts += [text[end : edit.start], edit.text]
            end = edit.end
    return "".join((*parts, text[end:]))


def mend(source: Source) -> tuple[Source, list[Finding]]:
    """The source with everything mended that has one right answer, and what that was."""
    done: list[Finding] = []
    if not source.whole:
        return source, done
    (report,) = lint([examine_text(source)])
    for _round in range(_ROUNDS):
        fixable = [finding for finding in report.findings if finding.edits]
        if not fixable:
            break
        text = apply(source.text, (edit for finding in fixable for edit in finding.edits))
        mended = Source(text, source.name, source.is_json)
        (after,) = lint([examine_text(mended)])
        if after.count(Severity.ERROR) > report.count(Severity.ERROR) and after.document.package is None:
            break  # an edit that makes it unreadable is no fix
        done += fixable
        source, report = mended, after
    return source, done
