from __future__ import annotations

import msgspec
import pytest

from bema.deploy.model.function import IN_PLACE, FunctionSettings


def test_what_is_said_nearer_holds_and_what_is_not_said_is_taken_from_behind():
    flags, script = FunctionSettings(max_instances=3, keep=False), FunctionSettings(keep=True, memory=1 << 30)
    assert flags.over(script) == FunctionSettings(max_instances=3, keep=False, memory=1 << 30)
    assert FunctionSettings().over(script) == script


def test_each_setting_needs_a_new_process_or_none():
    every = msgspec.convert(
        {
            "min_instances": 1,
            "max_instances": 2,
            "concurrency": 3,
            "idle_after": 4.0,
            "timeout": 5.0,
            "sticky": "cookie:user",
            "memory": 6,
            "keep": True,
            "health": "/ready",
            "isolation": "strict",
            "network": "none",
            "secrets": ["KEY"],
        },
        FunctionSettings,
    )
    assert None not in [getattr(every, name) for name in every.__struct_fields__]
    assert every.in_place().over(every.of_version()) == every
    assert set(msgspec.to_builtins(every.in_place())) == IN_PLACE
    assert not set(msgspec.to_builtins(every.of_version())) & IN_PLACE


def test_a_setting_that_there_is_not_is_refused_by_its_name():
    with pytest.raises(msgspec.ValidationError, match="max_instance"):
        msgspec.json.decode(b'{"max_instance": 3}', type=FunctionSettings)


def test_what_is_not_said_is_not_stored():
    assert msgspec.json.encode(FunctionSettings(concurrency=8)) == b'{"concurrency":8}'
