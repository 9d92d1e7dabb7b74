"""The schema takes what the model takes, and refuses the usual slips."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from bema.packages.opackage import to_data
from bema.packages.reading import read
from bema.packages.schema import schema

from .conftest import DATA, verdicts

ACCEPTED = [row for row in verdicts() if row.sound]
# what a schema cannot see: JSON's rules, YAML's own, and `yes`, which readers of YAML 1.1 take for a boolean
NOT_BY_SHAPE = {"r01", "r02", "r04", "r05", "r22", "r23", "r31", "r35", "r40"}


def valid(data):
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema()).is_valid(data)


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


def test_the_schema_is_json_and_the_same_every_time():
    assert json.dumps(schema()) == json.dumps(schema())
    assert schema()["required"] == ["name"]
    assert DATA.exists()
