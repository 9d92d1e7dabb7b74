"""The counters as Prometheus text (exposition format 0.0.4). Pure: activities and starts in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bema.gateway.routing.activity import BUCKETS, Activities, Activity
from bema.gateway.routing.starts import Starts, StartWaits

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LEAST = 8  # the first bucket told: 256 microseconds

_PER_DEPLOYMENT = (
    ("bema_gateway_in_flight", "gauge", "Requests being answered.", "in_flight", 1),
    ("bema_gateway_upstream_failures_total", "counter", "Instances lost or not reached.", "upstream_failures", 1),
    ("bema_gateway_last_access_seconds", "gauge", "When the last request ended.", "last_access", 1_000_000),
)


def exposition(activities: Activities, starts: Starts) -> str:
    """Every counter, one line each."""
    return "\n".join([*_lines(activities, activities.all()), *_start_lines(starts)]) + "\n"


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
    yield from _histogram(
        "bema_gateway_answer_seconds",
        "Time from the request's head to the answer's.",
        [(f'deployment="{a.deployment}"', a) for a in every],
    )


def _start_lines(starts: Starts) -> Iterator[str]:
    yield from _family(
        "bema_starts_total",
        "counter",
        "Instances that began to serve, by how they were started.",
        [(f'{{deployment="{deployment}",kind="{kind}"}}', count) for (deployment, kind), count in starts.begun.items()],
    )
    yield from _histogram(
        "bema_cold_start_seconds",
        "Time that requests waited for an instance to start, by how it was started.",
        [(f'kind="{kind}"', waits) for kind, waits in starts.waits.items()],
    )
    yield from _family(
        "bema_start_waits_failed_total",
        "counter",
        "Requests that waited for an instance to start and were given none, by the code of their answer.",
        [(f'{{code="{code}"}}', count) for code, count in starts.failed.items()],
    )


def _family(name: str, kind: str, says: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {says}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        # The six digits of `g` alone would put the last access hours off.
        yield f"{name}{labels} {value:.16g}"


def _histogram(name: str, says: str, every: Iterable[tuple[str, Activity | StartWaits]]) -> Iterator[str]:
    yield f"# HELP {name} {says}"
    yield f"# TYPE {name} histogram"
    for label, times in every:
        # Prometheus buckets are cumulative: each tells what took at most so long.
        below = sum(times.histogram[:_LEAST])
        for bucket in range(_LEAST, BUCKETS):
            below += times.histogram[bucket]
            yield f'{name}_bucket{{{label},le="{2**bucket / 1e6:g}"}} {below}'
        count = sum(times.histogram)
        yield f'{name}_bucket{{{label},le="+Inf"}} {count}'
        yield f"{name}_sum{{{label}}} {times.microseconds / 1e6:.16g}"
        yield f"{name}_count{{{label}}} {count}"
