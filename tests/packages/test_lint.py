"""Lint finds what the platform would drop or refuse; each finding has its rule, path, line and remedy."""

from __future__ import annotations

import pytest

from bema.packages.findings import Severity
from bema.packages.lint import RULES, lint
from bema.packages.nodes import Source
from bema.packages.reader import examine_text

from .conftest import DATA, check, rules

GOOD = """\
name: shop
version: 1.0.0
classes:
  - key: Order
    state_spec: {default_provider: memory, consistency_model: NONE, serialization_format: json}
    function_bindings:
      - {name: add, function_key: order.add, access_modifier: PUBLIC, parameters: [sku]}
functions:
  - key: order.add
    provision_config: {container_image: i, need_http2: true, port: 80, min_scale: 0, max_scale: 2}
"""
FUNCTION = "name: p\nfunctions: [{key: f, %s}]"
PROVISION = "name: p\nfunctions: [{key: f, provision_config: {container_image: i, need_http2: true, %s}}]"
CLASS = (
    "name: p\nclasses: [{key: C, %s}]\nfunctions: [{key: f, provision_config: {container_image: i, need_http2: true}}]"
)
BINDING = "{name: %s, function_key: f, access_modifier: PUBLIC%s}"
STRONG = """
name: p
classes: [{key: C, state_spec: {consistency_model: STRONG, default_provider: m, serialization_format: j}}]
deployments: [{key: d, package_name: p, class_key: C}]
"""
COMPANIONS = {"entry-key": {"odd-name"}, "class-label": {"odd-name"}, "merge-key": {"dropped-key"}}
DEPLOYMENT = "name: p\nclasses: [{key: C}]\ndeployments: [{key: d, package_name: p, class_key: C, %s}]"

CASES = [
    ("empty-name", "error", "name: ''"),
    ("empty-name", "error", DEPLOYMENT % "functions: [{function_key: ''}]"),
    ("name-with-space", "error", "name: my package"),
    ("odd-name", "warning", "name: p\nclasses: [{key: 'a/b'}]"),
    ("odd-name", "warning", "name: p/q"),
    ("class-label", "error", "name: p\nclasses: [{key: ___}]"),
    ("odd-version", "warning", "name: p\nversion: latest"),
    ("duplicate-class", "error", "name: p\nclasses: [{key: C}, {key: C}]"),
    (
        "duplicate-function",
        "error",
        "name: p\nfunctions: [{key: f, function_type: MACRO}, {key: f, function_type: MACRO}]",
    ),
    ("duplicate-binding", "warning", CLASS % f"function_bindings: [{BINDING % ('a', '')}, {BINDING % ('a', '')}]"),
    ("duplicate-parameter", "warning", CLASS % f"function_bindings: [{BINDING % ('a', ', parameters: [x, x]')}]"),
    (
        "duplicate-state-key",
        "warning",
        CLASS
        % "state_spec: {default_provider: m, serialization_format: j, key_specs: [{name: a, key_type: s}, {name: a, key_type: s}]}",
    ),
    (
        "duplicate-deployment",
        "warning",
        "name: p\ndeployments: [{key: d, package_name: p, class_key: C}, {key: d, package_name: p, class_key: C}]",
    ),
    (
        "entry-key",
        "warning",
        CLASS % "state_spec: {default_provider: m, serialization_format: j, key_specs: [{name: a/b, key_type: s}]}",
    ),
    ("missing-image", "warning", FUNCTION % "function_type: CUSTOM"),
    ("missing-image", "warning", FUNCTION % "provision_config: {need_http2: true, container_image: ''}"),
    ("missing-module", "warning", FUNCTION % "function_type: WASM"),
    ("http2-absent", "warning", FUNCTION % "provision_config: {container_image: i}"),
    ("http2-false", "error", FUNCTION % "provision_config: {container_image: i, need_http2: false}"),
    ("bad-quantity", "error", PROVISION % "cpu_request: 250mm"),
    ("bad-quantity", "error", PROVISION % "memory_limit: lots"),
    ("milli-memory", "warning", PROVISION % "memory_request: 256m"),
    ("request-over-limit", "warning", PROVISION % "cpu_request: 2, cpu_limit: 500m"),
    ("port-zero", "error", PROVISION % "port: 0"),
    ("scale-order", "warning", PROVISION % "min_scale: 9, max_scale: 2"),
    ("max-scale-zero", "warning", PROVISION % "min_scale: 0, max_scale: 0"),
    ("idle-provision", "warning", FUNCTION % "function_type: MACRO, provision_config: {container_image: i}"),
    ("state-default-absent", "warning", CLASS % "state_spec: {serialization_format: json}"),
    ("state-default-absent", "warning", CLASS % "state_spec: {default_provider: memory, serialization_format: ''}"),
    ("tag-ignored", "warning", "name: !!int p"),
    ("tag-ignored", "warning", PROVISION % "port: !!str 80"),
    ("merge-key", "warning", "x: &x {port: 1}\n" + PROVISION % "<<: *x"),
    ("dropped-key", "warning", "name: p\nclases: []"),
    ("legacy-key", "warning", "name: p\ndisabled: false"),
    ("legacy-key", "warning", CLASS % "disabled: true"),
    ("legacy-key", "warning", PROVISION % "knative: {}"),
    ("duplicate-config-key", "warning", FUNCTION % "function_type: MACRO, config: {A: 1, A: 2}"),
    ("trailing-marker", "error", "name: p\n---\n"),
    ("empty-dependency", "error", "name: p\ndependencies: ['']"),
    ("self-dependency", "error", "name: p\ndependencies: [p]"),
    ("missing-dependency", "error", "name: p\ndependencies: [q]"),
    ("throughput-zero", "error", DEPLOYMENT % "nfr_requirements: {min_throughput_rps: 0}"),
    ("availability-range", "error", DEPLOYMENT % "nfr_requirements: {availability: 1.5}"),
    ("availability-range", "error", DEPLOYMENT % "nfr_requirements: {availability: .nan}"),
    ("cpu-target-range", "error", DEPLOYMENT % "nfr_requirements: {cpu_utilization_target: 70}"),
    ("sampling-range", "warning", DEPLOYMENT % "telemetry: {sampling_rate: 7}"),
    ("odgm-count", "error", DEPLOYMENT % "odgm: {partition_count: 0}"),
    ("shard-type", "warning", DEPLOYMENT % "odgm: {shard_type: paxos}"),
    ("deployment-function", "warning", DEPLOYMENT % "functions: [{function_key: g}]"),
    (
        "deployment-class",
        "error",
        "name: p\nclasses: [{key: D}]\ndeployments: [{key: d, package_name: p, class_key: C}]",
    ),
    ("deployment-package", "warning", "name: p\ndeployments: [{key: d, package_name: q, class_key: C}]"),
    ("missing-function", "error", "name: p\nclasses: [{key: C, function_bindings: [%s]}]" % (BINDING % ("a", ""))),
    ("strong-without-raft", "warning", STRONG),
]


def test_a_good_document_has_no_findings():
    assert check(GOOD, strict=True).findings == ()


@pytest.mark.parametrize(("rule", "severity", "text"), CASES, ids=[f"{rule}-{n}" for n, (rule, *_) in enumerate(CASES)])
def test_each_rule_finds_its_breach_and_nothing_else_is_found(rule, severity, text):
    found = {finding.rule: finding for finding in check(text).findings}
    assert rule in found
    assert found[rule].severity == severity
    assert found[rule].line >= 1
    assert found[rule].path
    assert set(found) - {rule} <= COMPANIONS.get(rule, set())


def test_the_table_has_no_dead_row():
    """Every rule is breached by a case above, a fixture, or bad input."""
    elsewhere = {
        "no-file", "duplicate-package", "encoding", "too-large", "too-deep", "too-many-nodes", "alias-cycle", "yaml-syntax", "yaml-tag", "json-syntax",
        "several-documents", "missing-field", "duplicate-field", "wrong-type", "out-of-range", "unknown-variant",
        "bad-instant", "duplicate-dependency", "dependency-cycle",
    }  # fmt: skip
    assert {rule.id for rule in RULES} == {rule for rule, *_ in CASES} | elsewhere
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(("rule", "severity", "text"), CASES)
def test_severities_are_those_of_the_table(rule, severity, text):
    assert next(row for row in RULES if row.id == rule).severity == severity


def test_strict_makes_an_error_of_every_warning():
    loose = check((DATA / "accept" / "a11-min-scale-above-max-scale.yaml").read_text())
    strict = check((DATA / "accept" / "a11-min-scale-above-max-scale.yaml").read_text(), strict=True)
    assert loose.count(Severity.ERROR) == 0
    assert loose.count(Severity.WARNING) == strict.count(Severity.ERROR) == 2


def test_fields_of_earlier_dialects_are_named_and_one_is_translated():
    text = (DATA / "accept" / "a04-legacy-knative-immutable-ignored.yaml").read_text()
    immutable, knative = check(text).findings
    assert immutable.path == "classes[0].function_bindings[0].immutable"
    assert immutable.fix == "Write `stateless`."
    assert immutable.edits
    assert knative.path == "functions[0].provision_config.knative"
    assert check(text, strict=True).count(Severity.ERROR) == 2


def test_one_package_in_two_documents_is_named_at_the_later():
    first, second = (examine_text(Source("name: p\nfunctions: [{key: f, function_type: MACRO}]")) for _ in range(2))
    deployments = examine_text(Source("name: p\ndeployments: [{key: d, package_name: p, class_key: C}]"))
    assert [[found.rule for found in report.findings] for report in lint([first, second])] == [
        [],
        ["duplicate-package"],
    ]
    assert [report.findings for report in lint([deployments, first])] == [(), ()]


def test_deployments_given_first_do_not_hide_what_the_package_has():
    deployments = examine_text(Source("name: base\ndeployments: [{key: d, package_name: base, class_key: C}]"))
    base = examine_text(Source("name: base\nfunctions: [{key: f, function_type: MACRO}]"))
    binding = "{name: a, function_key: base.f, access_modifier: PUBLIC}"
    user = examine_text(Source(f"name: p\ndependencies: [base]\nclasses: [{{key: C, function_bindings: [{binding}]}}]"))
    assert [report.findings for report in lint([deployments, base, user])] == [(), (), ()]


def test_a_misspelled_field_is_offered_its_name():
    (found,) = check(PROVISION % "maxScale: 2").findings
    assert (found.rule, found.fix) == ("dropped-key", "Write `max_scale`.")


def test_a_wasm_function_needs_no_http2():
    assert rules(FUNCTION % "function_type: WASM, provision_config: {wasm_module_url: u}") == []


def test_placeholders_are_left_alone():
    assert rules(PROVISION % "cpu_request: '${CPU}'") == []


def test_a_document_of_deployments_only_needs_no_classes():
    assert rules("name: p\ndeployments: [{key: d, package_name: p, class_key: C}]") == []


def test_json_has_lines_too():
    text = '{\n "name": "p",\n "functions": [\n  {"key": "f", "provision_config": {"container_image": "i"}}\n ]\n}'
    (found,) = check(text, is_json=True).findings
    assert (found.rule, found.line, found.column) == ("http2-absent", 4, 36)
