"""YAML as it is written: plain where it is safe, quoted where it is not."""

from __future__ import annotations

import pytest
import yaml

from bema.core.errors import Invalid
from bema.packages.writer import scalar, to_yaml


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("order.add", "order.add"),
        ("ghcr.io/acme/counter:1.2.3", "ghcr.io/acme/counter:1.2.3"),
        ("Add a line", "Add a line"),
        ("1.2.3", "1.2.3"),
        ("1.2.3-rc1", "1.2.3-rc1"),
        ("250m", "250m"),
        ("1.0", '"1.0"'),
        ("yes", '"yes"'),
        ("NONE", "NONE"),
        ("", '""'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("a ", '"a "'),
        ("1e3", '"1e3"'),
        ("\x85\u2028\ufeff", '"\\u0085\\u2028\\ufeff"'),
        (True, "true"),
        (None, "null"),
        (1e16, "1.0e+16"),
        (0.5, "0.5"),
    ],
)
def test_a_scalar(value, text):
    assert scalar(value) == text
    assert yaml.load(text, Loader=yaml.SafeLoader) == value


def test_the_layout_of_a_document():
    data = {"name": "p", "tags": ["a", "b"], "none": [], "deep": {"list": [{"k": 1, "l": [{"m": {}}]}], "empty": {}}}
    assert to_yaml(data) == (
        "name: p\ntags: [a, b]\nnone: []\ndeep:\n  list:\n    - k: 1\n      l:\n        - m: {}\n  empty: {}\n"
    )


def test_long_lists_and_keys_are_laid_out_so_that_they_read():
    data = {"l": [f"item number {n}" for n in range(20)], "k" * 2000: {"a": 1}, "m": {"é" * 1000: "x"}}
    text = to_yaml(data)
    assert "  - item number 7\n" in text
    assert yaml.load(text, Loader=yaml.SafeLoader) == data


def test_what_no_document_can_carry_is_refused():
    with pytest.raises(Invalid, match="no document can carry"):
        to_yaml({"name": "\ud800"})
