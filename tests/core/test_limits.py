"""The table of limits."""

from __future__ import annotations

import re

import pytest

from bema.core.limits import LIMITS, limit


@pytest.mark.parametrize("row", LIMITS.values(), ids=LIMITS)
def test_every_limit_bounds_something_and_says_who_keeps_it(row):
    assert re.fullmatch(r"[a-z][a-z_]*", row.name)
    assert row.default > 0
    assert row.unit
    assert row.enforced_by
    assert row.says


def test_sizes_and_counts_are_whole_and_times_are_not():
    for row in LIMITS.values():
        assert isinstance(row.default, float if row.unit == "seconds" else int), row.name


def test_a_limit_is_asked_for_by_name():
    assert limit("stop") == LIMITS["stop"].default
    with pytest.raises(KeyError):
        limit("made_up")


def test_what_must_fit_into_another_does():
    assert limit("rpc_frame") <= limit("rpc_stream_window") <= limit("rpc_connection_window")
    assert limit("log_line") <= limit("channel_line")
    assert limit("log_line") < limit("log_file")
