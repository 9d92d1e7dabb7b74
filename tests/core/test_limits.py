"""The table of limits."""

from __future__ import annotations

import re

import pytest

from bema.core.errors import Refused
from bema.core.limits import DEFAULTS, LIMITS


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
    assert DEFAULTS.named("stop") == DEFAULTS.stop == LIMITS["stop"].default
    with pytest.raises(Refused, match=r"there is no limit 'stpo'; did you mean 'stop'"):
        DEFAULTS.named("stpo")


def test_what_must_fit_into_another_does():
    held = DEFAULTS
    assert held.rpc_frame <= held.rpc_stream_window <= held.rpc_connection_window
    assert held.log_line <= held.channel_line
    assert held.log_line < held.log_file
