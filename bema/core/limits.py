"""Every bound in one table: name, default, unit, who enforces it. The reference page is generated from it."""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    name: str
    default: int | float
    unit: str
    enforced_by: str
    says: str


_TABLE = (
    Limit("rpc_frame", 256 * 1024, "bytes", "wire", "largest batch written at once"),
    Limit("rpc_message", 32 * 1024 * 1024, "bytes", "wire", "largest payload of one message"),
    Limit("rpc_headers", 64 * 1024, "bytes", "wire", "largest header block of one call"),
    Limit("rpc_stream_window", 1024 * 1024, "bytes", "wire", "unread bytes a stream may hold"),
    Limit("rpc_stream_items", 16_384, "items", "runtime", "unread items a stream may hold, about"),
    Limit("rpc_connection_window", 8 * 1024 * 1024, "bytes", "wire", "unread bytes a connection may hold"),
    Limit("rpc_calls", 65_536, "calls", "runtime", "calls in flight on one connection"),
    Limit("rpc_connect", 5.0, "seconds", "runtime", "time to connect and greet"),
    Limit("rpc_heartbeat", 1.0, "seconds", "runtime", "silence after which a peer gets no new calls"),
    Limit("drain", 30.0, "seconds", "runtime", "grace for running calls at stop"),
    Limit("stalled", 5.0, "seconds", "runtime", "time an event loop may stand still before its instance is marked"),
    Limit("health", 1.0, "seconds", "sdk", "time between two looks at liveness and readiness"),
    Limit("health_answer", 5.0, "seconds", "sdk", "time for a health hook or a health check to answer"),
    Limit("lease", 5.0, "seconds", "runtime", "time to be given a lease"),
    Limit("handshake", 10.0, "seconds", "modules", "time for Init to arrive"),
    Limit("channel_line", 1024 * 1024, "bytes", "wire", "longest line on the module channel"),
    Limit("script", 1024 * 1024, "bytes", "deploy", "largest script"),
    Limit("start", 30.0, "seconds", "deploy", "time from spawn to announce"),
    Limit("build", 600.0, "seconds", "deploy", "time to lock and install"),
    Limit("stop", 10.0, "seconds", "deploy", "grace between stop and kill"),
    Limit("builds", 2, "builds", "deploy", "environments built at once"),
    Limit("starts", 8, "starts", "deploy", "instances started at once"),
    Limit("restarts", 5, "starts", "deploy", "starts within `restart_window` before crash_loop"),
    Limit("restart_window", 10.0, "seconds", "deploy", "window in which starts are counted"),
    Limit("log_line", 64 * 1024, "bytes", "keeper", "longest log line kept; the rest is cut and marked"),
    Limit("log_file", 4 * 1024 * 1024, "bytes", "keeper", "size at which a log is rotated"),
    Limit("log_files", 3, "files", "keeper", "rotated logs kept per instance"),
    Limit("http_head", 64 * 1024, "bytes", "gateway", "request line and headers"),
    Limit("http_headers", 100, "headers", "gateway", "number of headers"),
    Limit("http_body", 10 * 1024 * 1024, "bytes", "gateway, sdk", "request body"),
    Limit("http_head_time", 10.0, "seconds", "gateway", "time to send the head"),
    Limit("http_idle", 60.0, "seconds", "gateway", "keep-alive without a request"),
    Limit("http_body_idle", 30.0, "seconds", "gateway, sdk", "silence in the middle of a request body"),
    Limit("http_connections", 10_000, "connections", "gateway", "open client connections"),
    Limit("http_pool", 512, "connections", "gateway", "idle upstream connections per instance"),
    Limit("package_document", 8 * 1024 * 1024, "bytes", "packages", "largest package document"),
    Limit("package_nodes", 500_000, "values", "packages", "keys and values in one document, aliases written out"),
    Limit("package_depth", 128, "levels", "packages", "deepest nesting in one document"),
    Limit("http_pool_idle", 4.0, "seconds", "gateway", "time an upstream connection stays idle; servers close at 5"),
    Limit("http_connect", 5.0, "seconds", "gateway", "time to connect to an instance"),
    Limit("env", 256 * 1024, "bytes", "deploy", "environment variables of a deployment together, as JSON"),
    Limit("env_variable", 128 * 1024 - 1, "bytes", "deploy", "one environment variable, `NAME=value`"),
    Limit("state_value", 4 * 1024 * 1024, "bytes", "state", "largest value under one key"),
    Limit("state_blob", 64 * 1024 * 1024, "bytes", "state", "largest content kept by its digest"),
    Limit("state_group", 10_000, "mutations", "state", "mutations that are applied together"),
    Limit("http_waiters", 1000, "requests", "gateway", "requests waiting for one deployment to start"),
)

LIMITS: dict[str, Limit] = {limit.name: limit for limit in _TABLE}


def limit(name: str) -> int | float:
    """The default of a limit; `KeyError` for a name that is not in the table."""
    return LIMITS[name].default
