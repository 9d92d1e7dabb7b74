"""Lint: rules as a table.

Law: everything that can be wrong with a document is a row here. Rows without a check are found while reading: the model
itself refuses those that are errors, and drops silently what those that are warnings report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from bema.packages.context import Hit, RuleContext
from bema.packages.findings import Edit, Finding, Severity, at
from bema.packages.layout import comments
from bema.packages.nodes import Source
from bema.packages.opackage import OPackage
from bema.packages.reader import Document, examine_text
from bema.packages.rules import dependencies, deployments, functions, names

Check = Callable[[RuleContext], Iterator[Hit]]
# An error is what some layer of the platform refuses or declares wrong, also where nothing upstream calls the check.
# A warning is what it takes and then drops, ignores or runs in a way the author can hardly have meant.
E, W = Severity.ERROR, Severity.WARNING


class Rule(NamedTuple):
    id: str
    severity: Severity
    says: str
    check: Check | None = None
    fixes: bool = False  # whether `--fix` can mend it, at least sometimes


RULES: tuple[Rule, ...] = (
    # found while reading
    Rule("no-file", E, "The file cannot be opened."),
    Rule("encoding", E, "The file is not UTF-8."),
    Rule("too-large", E, "The document is larger than the limit."),
    Rule("too-deep", E, "The document is nested deeper than the limit."),
    Rule("too-many-nodes", E, "The document has more values than the limit, aliases written out."),
    Rule("alias-cycle", E, "An alias contains itself."),
    Rule("yaml-syntax", E, "The text is not YAML.", fixes=True),
    Rule("yaml-tag", E, "A tag asks for something other than plain data."),
    Rule("json-syntax", E, "The text is not JSON."),
    Rule("several-documents", E, "A file holds more than one document."),
    Rule("trailing-marker", E, "A closing `---` opens an empty second document.", fixes=True),
    Rule("missing-field", E, "A required field is absent."),
    Rule("duplicate-field", E, "A field is written twice."),
    Rule("wrong-type", E, "A value is of another kind than its field.", fixes=True),
    Rule("out-of-range", E, "A number does not fit its field."),
    Rule("unknown-variant", E, "A word is none of those its field takes.", fixes=True),
    Rule("bad-instant", E, "A time is not an RFC 3339 instant."),
    Rule("tag-ignored", W, "A tag says another type than the field has; the model ignores it.", fixes=True),
    Rule("dropped-key", W, "The model has no such field and drops it.", fixes=True),
    Rule("legacy-key", W, "The field belongs to an earlier dialect; the model drops it.", fixes=True),
    Rule("merge-key", W, "The model drops YAML merge keys."),
    Rule("duplicate-config-key", W, "A key of a map is written twice; the last one counts."),
    # names
    Rule("empty-name", E, "A name or key is empty.", names.empty_name),
    Rule("name-with-space", E, "A package name has a space.", names.name_with_space),
    Rule("odd-name", W, "A name has characters that routes cannot carry.", names.odd_name),
    Rule("class-label", E, "A class key leaves nothing for a deployment id.", names.class_label),
    Rule("odd-version", W, "A version does not look like one.", names.odd_version),
    Rule("duplicate-package", W, "Two documents are of one package.", names.duplicate_package),
    Rule("duplicate-class", E, "Two classes have one key.", names.duplicate_class),
    Rule("duplicate-function", E, "Two functions have one key.", names.duplicate_function),
    Rule("duplicate-binding", W, "A class binds one name twice.", names.duplicate_binding),
    Rule("duplicate-parameter", W, "A binding names a parameter twice.", names.duplicate_parameter),
    Rule("duplicate-state-key", W, "A state declares a key twice.", names.duplicate_state_key),
    Rule("entry-key", W, "A state key is no name the data plane can store.", names.entry_key),
    Rule("duplicate-deployment", W, "Two deployments have one key.", names.duplicate_deployment),
    # functions and state
    Rule("missing-image", W, "A CUSTOM function has no container image.", functions.missing_image),
    Rule("missing-module", W, "A WASM function has no module.", functions.missing_module),
    Rule("http2-absent", W, "need_http2 is absent, which counts as false.", functions.http2_absent, fixes=True),
    Rule("http2-false", E, "need_http2 is false.", functions.http2_false),
    Rule("bad-quantity", E, "A resource is not a quantity.", functions.bad_quantity),
    Rule("milli-memory", W, "Memory is given in thousandths of a byte.", functions.milli_memory),
    Rule("request-over-limit", W, "A request is above its limit.", functions.request_over_limit),
    Rule("port-zero", E, "A port is 0.", functions.port_zero),
    Rule("scale-order", W, "min_scale is above max_scale.", functions.scale_order),
    Rule("max-scale-zero", W, "max_scale is 0.", functions.max_scale_zero),
    Rule("idle-provision", W, "A function that runs no container is provisioned.", functions.idle_provision),
    Rule(
        "state-default-absent",
        W,
        "A state leaves out its provider or format, which then is the empty text.",
        functions.state_default_absent,
        fixes=True,
    ),
    # dependencies
    Rule("empty-dependency", E, "A dependency is empty.", dependencies.empty_dependency),
    Rule("duplicate-dependency", W, "A dependency is listed twice.", dependencies.duplicate_dependency),
    Rule("self-dependency", E, "A package depends on itself.", dependencies.self_dependency),
    Rule("missing-dependency", E, "A dependency is not at hand.", dependencies.missing_dependency),
    Rule("dependency-cycle", E, "Dependencies go in a circle.", dependencies.dependency_cycle),
    Rule("missing-function", E, "A binding names a function that is not there.", dependencies.missing_function),
    # deployments
    Rule("throughput-zero", E, "The throughput required is 0.", deployments.throughput_zero),
    Rule("availability-range", E, "An availability is not between 0 and 1.", deployments.availability_range),
    Rule("cpu-target-range", E, "A CPU target is not between 0 and 1.", deployments.cpu_target_range),
    Rule("sampling-range", W, "A sampling rate is not between 0 and 1.", deployments.sampling_range),
    Rule("odgm-count", E, "A number of partitions or replicas is 0.", deployments.odgm_count),
    Rule("shard-type", W, "A shard type is none that the data plane knows.", deployments.shard_type),
    Rule("strong-without-raft", W, "A STRONG class is deployed without raft.", deployments.strong_without_raft),
    Rule("deployment-package", W, "A deployment is of another package.", deployments.deployment_package),
    Rule("deployment-class", E, "A deployment is of a class that is not there.", deployments.deployment_class),
    Rule(
        "deployment-function",
        W,
        "A deployment places a function its class does not bind.",
        deployments.deployment_function,
    ),
)


class LintReport(NamedTuple):
    document: Document
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)


def lint(documents: Sequence[Document], *, known: Iterable[str] = (), strict: bool = False) -> list[LintReport]:
    """One report per document; they are looked at together, so that dependencies are found among them."""
    packages: dict[str, OPackage] = {}
    # one that holds deployments only says nothing of what its package has: it comes last
    for package in sorted(filter(None, (d.package for d in documents)), key=lambda p: not (p.classes or p.functions)):
        packages.setdefault(package.name, package)
    stored = frozenset(known)
    # once for the run: asked per finding, the time would grow with the square of the dependencies
    needed_by = dependencies.dependents(packages.values())
    return [LintReport(d, _ordered(_findings(d, packages, stored, needed_by), strict)) for d in documents]


def _findings(
    document: Document, packages: dict[str, OPackage], known: frozenset[str], needed_by: dict[str, list[str]]
) -> Iterator[Finding]:
    yield from document.problems
    yield from document.notes
    if document.package is None:
        return
    context = RuleContext(document, packages, known, needed_by)
    for rule in RULES:
        for hit in rule.check(context) if rule.check else ():
            node = context.node(hit.path)
            start = node.start if node else 0
            yield at(document.source, rule.id, rule.severity, hit.path, start, hit.message, hit.fix, hit.edits)


def _ordered(findings: Iterable[Finding], strict: bool) -> tuple[Finding, ...]:
    in_order = sorted(findings, key=lambda finding: (finding.line, finding.column, finding.rule))
    if not strict:
        return tuple(in_order)
    return tuple(msgspec.structs.replace(finding, severity=Severity.ERROR) for finding in in_order)


# `--fix`: edits of the text itself, so that nothing but the mended places changes


_ROUNDS = 10  # a mended slip can uncover the next one
_ALONE = 20  # how many edits are tried one by one, each at the cost of a reading


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with the edits made; of two that overlap, the first counts."""
    parts: list[str] = []
    end = 0
    # a slip behind an alias is found at every place that names it, with the same edit
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
    # of one document: an edit never rests on what others say
    report = _report(source)
    for _round in range(_ROUNDS):
        fixable = [finding for finding in report.findings if finding.edits and not _costs_comment(report, finding)]
        # together, or where that goes wrong one by one: an edit that makes it worse is no fix and hinders no other
        for attempt in (fixable, *([finding] for finding in fixable[:_ALONE])) if fixable else ():
            text = apply(source.text, (edit for finding in attempt for edit in finding.edits))
            after = _report(Source(text, source.name, source.is_json))
            # equal is enough: to mend a warning changes no count of errors
            if _badness(after) <= _badness(report):
                break
        else:
            break
        done += attempt
        source, report = after.document.source, after
    return source, done


def _report(source: Source) -> LintReport:
    (report,) = lint([examine_text(source)])
    return report


def _badness(report: LintReport) -> tuple[bool, bool, int]:
    """A text without a tree hides its errors: to see more of them is no loss."""
    document = report.document
    return document.root is None and bool(document.problems), document.package is None, report.count(Severity.ERROR)


def _costs_comment(report: LintReport, finding: Finding) -> bool:
    root, text = report.document.root, report.document.source.text
    if root is None or not any("#" in text[edit.start : edit.end] for edit in finding.edits):
        return False
    return any(edit.start <= offset < edit.end for offset, _ in comments(text, root) for edit in finding.edits)
