"""The sandbox that an instance is told to enter, and what a machine that offers less is asked in vain."""

from pathlib import Path

import pytest

from bema.core.errors import Refused
from bema.core.limits import DEFAULTS
from bema.deploy.launch import isolation
from bema.deploy.launch.isolation import InstanceBounds
from bema.deploy.launch.sandbox import Home
from bema.deploy.model.isolation import Isolation
from bema.runner import sandbox

HOME, BOUNDS = Home(Path("/homes/one")), InstanceBounds.of(DEFAULTS)


@pytest.fixture
def offers(monkeypatch):
    """A machine of that level."""
    return lambda level: monkeypatch.setattr(sandbox, "level", lambda: level)


def wanted(**asked):
    return isolation.wanted(Isolation(**asked), HOME, ["/layer"], BOUNDS)


def test_its_folders_are_written_and_what_it_is_made_of_is_read(offers, monkeypatch):
    offers("full")
    monkeypatch.setenv("BEMA_STATE_DIR", "/state")
    found = wanted(kind="standard", read=("/models",), write=("/srv/out",))
    assert found["write"] == ["/homes/one/home", "/homes/one/tmp", "/srv/out"]
    assert found["read"] == ["/layer", "/state/run", "/state/up.json", "/models"]
    assert found["withheld"] == ["/state"]
    assert (found["connect"], found["system_calls"]) == (None, False)


def test_a_strict_one_does_not_see_where_others_meet(offers):
    offers("full")
    found = wanted(kind="strict")
    assert found["read"] == ["/layer"]
    assert found["system_calls"]
    assert found["limits"]["address_space"] == 4 * found["limits"]["memory"]


def test_the_limits_of_the_platform_are_those_of_each_process(offers):
    offers("full")
    bounds = InstanceBounds.of(DEFAULTS.but(instance_memory=1 << 28, instance_disk=1 << 20))
    found = isolation.wanted(Isolation(kind="standard"), HOME, [], bounds)
    assert found
    assert found["limits"] == {
        "memory": 1 << 28,
        "file": 1 << 20,
        "processes": DEFAULTS.instance_processes,
        "files": DEFAULTS.instance_files,
    }


def test_a_network_is_bounded_with_the_calls_that_would_go_around_it(offers):
    offers("network")
    found = wanted(kind="none", network=())
    assert (found["kind"], found["connect"], found["system_calls"]) == ("standard", [], True)


def test_where_none_is_asked_for_nothing_is_entered(offers):
    offers("full")
    assert wanted(kind="none") is None
    assert isolation.shown(None) == {"kind": "none"}


@pytest.mark.parametrize(
    ("level", "asked", "given"),
    [
        ("basic", {"kind": "standard"}, True),
        ("basic", {"kind": "standard", "network": ()}, False),
        ("files", {"kind": "filtered"}, False),
        ("files", {"kind": "strict"}, False),
        ("network", {"kind": "filtered"}, True),
        ("network", {"kind": "standard", "network": (443,)}, True),
        ("network", {"kind": "strict"}, False),
        ("full", {"kind": "strict", "network": ()}, True),
    ],
)
def test_what_a_machine_has_not_is_refused_and_never_left_out(offers, level, asked, given):
    offers(level)
    if given:
        assert wanted(**asked)["level"] == level
    else:
        with pytest.raises(Refused, match=f"this machine has '{level}'") as refused:
            wanted(**asked)
        assert refused.value.code == "isolation_missing"


def test_the_record_says_what_holds_and_what_does_not(offers):
    offers("full")
    shown = isolation.shown(wanted(kind="strict", network=(53, 443)))
    assert shown == {"kind": "strict", "level": "full", "network": [53, 443], "missing": sandbox.missing()}
