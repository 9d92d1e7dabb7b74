"""The schema takes what the model takes, and refuses the usual slips."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.packages.nodes import Source
from bema.packages.opackage import schema, to_data
from bema.packages.reader import examine_text, read

from .conftest import DATA, verdicts
from .documents import packages
from .test_properties import GOOD, mutated

ACCEPTED = [row for row in verdicts() if row.sound]
# what a schema cannot see: JSON's rules, YAML's own, and `yes`, which readers of YAML 1.1 take for a boolean
NOT_BY_SHAPE = {"r04", "r05", "r22", "r23", "r31", "r35", "r40"}


VALIDATOR = jsonschema.Draft202012Validator(schema())


def valid(data):
    return VALIDATOR.is_valid(data)


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.name)
def test_what_is_accepted_is_valid(row):
    assert valid(yaml.load(row.file.read_text(), Loader=yaml.SafeLoader))
    assert valid(to_data(read(row.file)))


@pytest.mark.parametrize(
    "row", [r for r in verdicts() if not r.readable and r.name[:3] not in NOT_BY_SHAPE], ids=lambda row: row.name
)
def test_a_wrong_shape_is_not_valid(row):
    data = yaml.load(row.file.read_text(), Loader=yaml.SafeLoader)
    assert not valid(data)


@pytest.mark.parametrize("row", [r for r in verdicts() if r.readable and not r.sound], ids=lambda row: row.name)
def test_what_only_lint_refuses_is_valid(row):
    """The schema takes what the model takes; what is wrong beyond that is lint's to say."""
    assert valid(yaml.load(row.file.read_text(), Loader=yaml.SafeLoader))


@given(packages)
@settings(max_examples=50)
def test_every_document_of_the_model_is_valid(package):
    assert VALIDATOR.is_valid(to_data(package))


@given(st.integers())
@settings(max_examples=150)
def test_what_the_reader_takes_the_schema_takes(seed):
    """Never the other way round: an editor must not underline what the platform reads."""
    data = mutated(yaml.load(GOOD, Loader=yaml.SafeLoader), seed)
    if examine_text(Source(yaml.safe_dump(data))).package is not None:
        assert VALIDATOR.is_valid(data), list(VALIDATOR.iter_errors(data))


def test_the_schema_is_json_and_the_same_every_time():
    assert json.dumps(schema()) == json.dumps(schema())
    assert schema()["required"] == ["name"]
    assert DATA.exists()
