"""Names of Dynamo that need etcd, NATS, QUIC, language models or GPUs. Law: each is refused, with what to use instead."""

from __future__ import annotations

from typing import Any, NoReturn

from bema.core.errors import Refused

_ETCD = (
    "Instances meet in a folder; `endpoint.publish(...)` and `client.instances()` say and read what etcd was used for."
)
MODELS = "A service of language models is a service: write a class with @service and call it by its endpoints."
ENGINES = (
    "Give the engine's async generator to `endpoint.serve_endpoint(...)`, or write the engine as a class with @service."
)
_EVENTS = "There is no event plane: serve an endpoint that streams the events."
_TOKENS = "Await `runtime.stopping.wait()`, and end there what you began."
_SPANS = "Begin a span with your tracing library, as a child of `context.trace_headers()`."
_ROUTING = "Choose among instances by `router_mode`, or by what they publish, with a picker of your own."

NAMES: dict[str, str] = {
    **dict.fromkeys(("EtcdKvCache", "etcd_client", "do_not_use_etcd_client"), _ETCD),
    **dict.fromkeys(("KvEventPublisher", "ZmqKvEventPublisher", "EventPublisher", "WorkerMetricsPublisher"), _EVENTS),
    **dict.fromkeys(
        (
            "KvRouter",
            "KvPushRouter",
            "KvIndexer",
            "KvMetricsAggregator",
            "device_aware_weighted",
            "SelectionServiceError",
        ),
        _ROUTING,
    ),
    **dict.fromkeys(("CancellationToken", "child_token"), _TOKENS),
    **dict.fromkeys(("current_span", "start_span"), _SPANS),
    **dict.fromkeys(
        ("ModelDeploymentCard", "ModelType", "register_llm", "register_model", "HttpService", "HttpAsyncEngine"), MODELS
    ),
    "first_token_source": MODELS,
    "allocate_port_block": "Ask the operating system: bind to port 0 and publish the port you got.",
    "to_capsule": "Pass the runtime itself: there is no compiled part that would want a capsule.",
    "detached": "Make a runtime of its own: any number of them live in one process.",
    "metrics": "What is counted of an endpoint is at /metrics of the port in BEMA_STATUS_PORT, with its `metrics_labels`; metrics of your own"
    " are a metrics library's.",
}


class NotSo(Refused):
    """Something of Dynamo that bema does not do. A traceback shows what to use as well."""

    def __str__(self) -> str:
        return f"{self.message}. {self.fix}"


class NotHere(NotSo, ImportError):
    """A name of Dynamo that bema does not have."""


def refuse(of: str, name: str) -> NoReturn:
    """`NotHere` with the replacement; `AttributeError` for a name that nobody knows."""
    if name not in NAMES:
        raise AttributeError(f"{of} has no {name!r}")
    raise NotHere(f"{of}: {name} is not here", fix=NAMES[name])


def backend(option: str, value: Any, known: dict[Any, str], of: str = "DistributedRuntime") -> None:
    """Refuse a way to meet or to travel that is not ours; `known` says what to use for each that is not."""
    if value in known:
        raise NotHere(f"{of}({option}={value!r}) is not here", fix=known[value])
