"""Exposition: the counters of a process in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bema.runtime.rpc.metrics import BOUNDS, CallCounter
from bema.sdk.status.components import ComponentView

Rows = list[tuple[str, CallCounter]]
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(members: Sequence[ComponentView], *, ready: bool, stalled: bool, lag: float) -> str:
    """The page of `/metrics`."""
    rows = [(_where(member, name), counter) for member in members for name, counter in member.counters()]
    counted = {id(member.metrics): member.metrics for member in members}.values()
    refused = [dict(metrics.refused) for metrics in counted]
    families = (
        _family("requests_total", "counter", "Calls that ended, by what they ended as.", _outcomes(rows)),
        _family("requests_in_flight", "gauge", "Calls that run.", ((w, "", t.in_flight) for w, t in rows)),
        _family("errors_total", "counter", "Calls that failed, by code.", _errors(rows)),
        _family("cancellations_total", "counter", "Calls given up.", ((w, "", t.cancelled) for w, t in rows)),
        _family(
            "refused_total",
            "counter",
            "Calls refused before they ran, by code.",
            (
                (f'code="{code}"', "", sum(counts.get(code, 0) for counts in refused))
                for code in sorted({code for counts in refused for code in counts})
            ),
        ),
        _family("request_duration_seconds", "histogram", "How long calls ran.", _durations(rows)),
        _family("ready", "gauge", "1 while calls are taken.", [("", "", int(ready))]),
        _family("stalled", "gauge", "1 while the event loop stands still.", [("", "", int(stalled))]),
        _family("loop_lag_seconds", "gauge", "How late the event loop was of late, at most.", [("", "", lag)]),
    )
    return "".join(families)


def _where(member: ComponentView, endpoint: str) -> str:
    """The labels of an endpoint's counters: its address, and the labels that it was served with."""
    hosted = member.hosted
    own = hosted.labels.get(endpoint, {})
    labels = {**own, "namespace": hosted.namespace, "component": hosted.component, "endpoint": endpoint}
    place = [f'{name}="{labels.pop(name)}"' for name in ("namespace", "component", "endpoint")]
    return ",".join([*place, *(f'{name}="{str(value).translate(_ESCAPED)}"' for name, value in labels.items())])


def _family(name: str, kind: str, says: str, samples: Any) -> str:
    head = f"# HELP bema_{name} {says}\n# TYPE bema_{name} {kind}\n"
    return head + "".join(
        f"bema_{name}{suffix}{{{labels}}} {value}\n" if labels else f"bema_{name}{suffix} {value}\n"
        for labels, suffix, value in samples
    )


def _outcomes(rows: Rows) -> Iterator[tuple[str, str, int]]:
    for where, counter in rows:
        for outcome in ("ok", "error", "cancelled"):
            count = counter.errors.total() if outcome == "error" else getattr(counter, outcome)
            yield f'{where},outcome="{outcome}"', "", count


def _errors(rows: Rows) -> Iterator[tuple[str, str, int]]:
    for where, counter in rows:
        for code, count in sorted(counter.errors.items()):
            yield f'{where},code="{code}"', "", count


def _durations(rows: Rows) -> Iterator[tuple[str, str, float]]:
    for where, counter in rows:
        so_far = 0
        for bound, count in zip((*BOUNDS, "+Inf"), counter.buckets, strict=True):
            so_far += count
            yield f'{where},le="{bound}"', "_bucket", so_far
        yield where, "_sum", counter.seconds
        yield where, "_count", so_far
