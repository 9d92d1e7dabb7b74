"""The schema takes what the model takes, and refuses the usual slips."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.packages.findings import Severity
from bema.packages.lint import lint
from bema.packages.nodes import Source
from bema.packages.opackage import schema, to_data
from bema.packages.reader import examine_text, read

from .conftest import DATA, verdicts
from .documents import packages
from .test_lint import CASES
from .test_properties import GOOD, mutated

ACCEPTED = [row for row in verdicts() if row.sound]
# what a schema cannot see, and why: it is asked about data, not about a text, and compares no two places of it
BEYOND_A_SCHEMA = {
    "r04": "of several documents only one becomes data",
    "r05": "the text is no YAML, so that there is no data",
    "r22": "null in JSON only: YAML takes a blank, and the schema is for both",
    "r23": "null in JSON only: YAML takes a blank, and the schema is for both",
    "r31": "of two equal keys one becomes data",
    "r35": "a number for a text in JSON only: YAML takes it bare",
    "r40": "readers of YAML 1.1 make a boolean of `yes`",
    "v03": "a binding's function is looked for among the functions",
    "v05": "two items are compared by one of their fields",
    "v06": "two items are compared by one of their fields",
}
RULES_BEYOND = {
    "trailing-marker": "of several documents only one becomes data",
    "self-dependency": "a dependency is compared with the name",
    "missing-dependency": "other documents are asked",
    "missing-function": "a binding's function is looked for among the functions and in other documents",
    "duplicate-class": "two items are compared by one of their fields",
    "duplicate-function": "two items are compared by one of their fields",
    "deployment-class": "a deployment's class is looked for among the classes",
}


VALIDATOR = jsonschema.Draft202012Validator(schema())


def valid(data):
    return VALIDATOR.is_valid(data)


def refused(text, *, is_json=False):
    (report,) = lint([examine_text(Source(text, is_json=is_json))])
    return report.document.package is None or report.count(Severity.ERROR) > 0


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.name)
def test_what_is_accepted_is_valid(row):
    assert valid(yaml.load(row.file.read_text(), Loader=yaml.SafeLoader))
    printed = to_data(read(row.file))  # an absent need_http2 is printed as false, which lint refuses
    assert valid(printed) or refused(json.dumps(printed), is_json=True)


REFUSED = [row for row in verdicts() if not row.sound]


@pytest.mark.parametrize(
    "row", [r for r in REFUSED if not r.readable and r.name[:3] not in BEYOND_A_SCHEMA], ids=lambda row: row.name
)
def test_a_wrong_shape_is_not_valid(row):
    assert not valid(yaml.load(row.file.read_text(), Loader=yaml.SafeLoader))


@pytest.mark.parametrize(
    "row", [r for r in REFUSED if r.readable and r.name[:3] not in BEYOND_A_SCHEMA], ids=lambda row: row.name
)
def test_what_the_model_takes_and_lint_refuses_is_not_valid_either(row):
    assert not valid(yaml.load(row.file.read_text(), Loader=yaml.SafeLoader))


@pytest.mark.parametrize(
    "row", [r for r in REFUSED if r.name[:3] in BEYOND_A_SCHEMA and r.readable], ids=lambda r: r.name
)
def test_what_only_lint_refuses_is_valid(row):
    """What needs two places or two documents is lint's to say."""
    assert valid(yaml.load(row.file.read_text(), Loader=yaml.SafeLoader)), BEYOND_A_SCHEMA[row.name[:3]]


def test_no_reason_is_given_for_what_a_schema_says():
    names = {row.name[:3]: row for row in REFUSED}
    assert set(BEYOND_A_SCHEMA) <= set(names)
    assert not set(RULES_BEYOND) & {rule for rule, severity, _ in CASES if severity == "warning"}
    assert set(RULES_BEYOND) <= {rule for rule, *_ in CASES}


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, severity, text in CASES if severity == "error"])
def test_every_rule_that_a_schema_can_say_is_in_it(rule, text):
    try:
        data = yaml.load(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        assert rule in RULES_BEYOND
        return
    if "nan" in text:  # no number compares with it, and JSON has none such
        return
    assert valid(data) is (rule in RULES_BEYOND)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("2026-03-01T10:00:00Z", True), ("2026-03-01 10:00:60.25+02:00", True), ("2026-03-01", False), ("soon", False),
        ("2026-13-01T10:00:00Z", False), ("2026-03-01T24:00:00Z", False), ("2026-03-01T10:00:00", False),
    ],
)  # fmt: skip
def test_a_time_is_one_without_a_checker_of_formats(said, right):
    assert valid({"name": "p", "metadata": {"created_at": said}}) is right


@pytest.mark.parametrize("said", ["250m", "1Gi", 2, 0.5, "${CPU}", "1e3", ".5", "+1"])
def test_a_quantity_that_lint_takes_is_valid(said):
    assert valid({"name": "p", "functions": [{"key": "f", "provision_config": {"cpu_request": said}}]})


@given(packages)
@settings(max_examples=50)
def test_every_document_of_the_model_is_valid(package):
    """But what lint has an error for."""
    data = to_data(package)
    assert VALIDATOR.is_valid(data) or refused(json.dumps(data), is_json=True)


@given(st.integers())
@settings(max_examples=150)
def test_what_the_reader_takes_the_schema_takes(seed):
    """Never the other way round: an editor must not underline what the platform reads and lint lets pass."""
    data = mutated(yaml.load(GOOD, Loader=yaml.SafeLoader), seed)
    if not refused(yaml.safe_dump(data)):
        assert VALIDATOR.is_valid(data), list(VALIDATOR.iter_errors(data))


def test_the_schema_is_json_and_the_same_every_time():
    assert json.dumps(schema()) == json.dumps(schema())
    assert schema()["required"] == ["name"]
    assert DATA.exists()
