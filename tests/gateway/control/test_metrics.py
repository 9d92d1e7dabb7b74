"""The counters as Prometheus text."""

from __future__ import annotations

from bema.core.errors import BemaError
from bema.core.instance import Instance
from bema.gateway.control.metrics import exposition
from bema.gateway.routing.activity import Activities
from bema.gateway.routing.starts import Starts


def test_starts_are_told_by_deployment_and_waits_by_kind():
    starts = Starts()
    forked = Instance(id=1, namespace="t", component="t", deployment="d", data={"start": {"kind": "zygote"}})
    starts.shown(forked)
    starts.shown(forked)
    starts.waited(forked, 0.03)
    starts.waited(forked, 0.5)
    starts.refused(BemaError(code="start_failed"))
    lines = exposition(Activities(), starts).splitlines()
    assert 'bema_starts_total{deployment="d",kind="zygote"} 2' in lines
    assert 'bema_start_waits_failed_total{code="start_failed"} 1' in lines
    assert 'bema_cold_start_seconds_bucket{kind="zygote",le="0.016384"} 0' in lines
    assert 'bema_cold_start_seconds_bucket{kind="zygote",le="0.032768"} 1' in lines
    assert 'bema_cold_start_seconds_bucket{kind="zygote",le="+Inf"} 2' in lines
    assert 'bema_cold_start_seconds_sum{kind="zygote"} 0.53' in lines
    assert 'bema_cold_start_seconds_count{kind="exec"} 0' in lines


def test_every_family_says_what_it_is_once_and_before_its_samples():
    activities = Activities()
    activities.of("d").answered(200, 0.01)
    lines = exposition(activities, Starts()).splitlines()
    families = [line.split()[2:] for line in lines if line.startswith("# TYPE ")]
    assert len({name for name, _ in families}) == len(families)
    told = ""
    for line in lines:
        if line.startswith("# HELP "):
            told = line.split()[2]
        else:
            assert line.removeprefix("# TYPE ").startswith(told)
