"""The counters as Prometheus text (exposition format 0.0.4). Pure: activities in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bema.gateway.routing.activity import BUCKETS, Activities, Activity

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LEAST = 8  # the first bucket told: 256 microseconds

_PER_DEPLOYMENT = (
    ("bema_gateway_in_flight", "gauge", "Requests being answered.", "in_flight", 1),
    ("bema_gateway_upstream_failures_total", "counter", "Instances lost or not reached.", "upstream_failures", 1),
    ("bema_gateway_last_access_seconds", "gauge", "When the last request ended.", "last_access", 1_000_000),
)


def exposition(activities: Activities) -> str:
    """Every counter, one line each."""
    every = activities.all()
    return "\n".join(_lines(activities, every)) + "\n"


def _lines(activities: Activities, every: list[Activity]) -> Iterator[str]:
    yield from _family("bema_gateway_connections", "gauge", "Open client connections.", [("", activities.connections)])
    yield from _family(
        "bema_gateway_refused_total",
        "counter",
        "Requests that named no deployment or broke a rule.",
        [("", activities.refused)],
    )
    yield from _family(
        "bema_gateway_requests_total",
        "counter",
        "Answers by class of status.",
        [
            (f'{{deployment="{a.deployment}",status="{digit}xx"}}', count)
            for a in every
            for digit, count in enumerate(a.answers)
            if count
        ],
    )
    for name, kind, says, field, unit in _PER_DEPLOYMENT:
        samples = [(f'{{deployment="{a.deployment}"}}', getattr(a, field) / unit) for a in every]
        yield from _family(name, kind, says, samples)
    yield from _histogram("bema_gateway_answer_seconds", "Time from the request's head to the answer's.", every)


def _family(name: str, kind: str, says: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {says}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        # The six digits of `g` alone would put the last access hours off.
        yield f"{name}{labels} {value:.16g}"


def _histogram(name: str, says: str, every: list[Activity]) -> Iterator[str]:
    yield f"# HELP {name} {says}"
    yield f"# TYPE {name} histogram"
    for activity in every:
        # Prometheus buckets are cumulative: each tells what took at most so long.
        below = sum(activity.histogram[:_LEAST])
        for bucket in range(_LEAST, BUCKETS):
            below += activity.histogram[bucket]
            yield f'{name}_bucket{{deployment="{activity.deployment}",le="{2**bucket / 1e6:g}"}} {below}'
        count = sum(activity.histogram)
        yield f'{name}_bucket{{deployment="{activity.deployment}",le="+Inf"}} {count}'
        yield f'{name}_sum{{deployment="{activity.deployment}"}} {activity.microseconds / 1e6:.16g}'
        yield f'{name}_count{{deployment="{activity.deployment}"}} {count}'
