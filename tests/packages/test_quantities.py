from __future__ import annotations

import pytest

from bema.packages.scalars import amount


@pytest.mark.parametrize(
    ("text", "value"),
    [("250m", 0.25), ("1", 1.0), ("1.5", 1.5), (".5", 0.5), ("256Mi", 256 * 2**20), ("1Gi", 2**30), ("1k", 1000.0),
     ("1e3", 1000.0), ("12E", 12e18), ("100n", 1e-7)],
)  # fmt: skip
def test_a_quantity_is_worth(text, value):
    assert amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["250mm", "", "m", "-1", "1 Gi", "1GiB", "1kb", "0x10", "1e", "٣", "9" * 40])
def test_what_is_no_quantity(text):
    assert amount(text) is None
