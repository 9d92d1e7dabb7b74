"""Limits: every bound of bema in one value, whose fields are the table that the reference page is generated from.

Laws: a process makes the value once, at its entry, and passes it down; no other code reads a default from the table. Every
limit can be set, within the range in which it works.
"""

# no `annotations` of __future__ here: the table is made of them
from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec

from bema.core.errors import Refused
from bema.core.naming import nearest


class _Row(msgspec.Struct, frozen=True):
    """What the table says of a limit. It works from `least` to `most`; 0 stands for what its unit allows."""

    unit: str
    enforced_by: str
    says: str
    least: float = 0
    most: float = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits in force. Times are in seconds, sizes in bytes, counts are whole numbers."""

    # a peer takes frames and headers up to the default, whatever it has set
    rpc_frame: Annotated[
        int, _Row("bytes", "wire", "largest batch of messages written at once", least=4096, most=256 * 1024)
    ] = 256 * 1024
    rpc_message: Annotated[int, _Row("bytes", "wire", "largest payload of one message", least=4096)] = 32 * 1024 * 1024
    rpc_headers: Annotated[
        int, _Row("bytes", "wire", "largest header block of one call", least=256, most=64 * 1024)
    ] = 64 * 1024
    # less than four times the floor of a stream, and what is given back would come too late
    rpc_stream_window: Annotated[int, _Row("bytes", "wire", "unread bytes a stream may hold", least=64 * 1024)] = (
        1024 * 1024
    )
    rpc_stream_items: Annotated[int, _Row("items", "runtime", "unread items a stream may hold, about")] = 16_384
    rpc_connection_window: Annotated[
        int, _Row("bytes", "wire", "unread bytes a connection may hold", least=64 * 1024)
    ] = 8 * 1024 * 1024
    rpc_calls: Annotated[int, _Row("calls", "runtime", "calls in flight on one connection")] = 65_536
    rpc_connect: Annotated[float, _Row("seconds", "runtime", "time to connect and greet")] = 5.0
    rpc_heartbeat: Annotated[
        float, _Row("seconds", "runtime", "silence after which a peer gets no new calls", least=0.05)
    ] = 1.0
    drain: Annotated[float, _Row("seconds", "runtime", "grace for running calls at stop")] = 30.0
    stalled: Annotated[
        float,
        _Row("seconds", "runtime", "time an event loop may stand still before its instance is marked", least=0.01),
    ] = 5.0
    health: Annotated[float, _Row("seconds", "sdk", "time between two looks at liveness and readiness")] = 1.0
    health_answer: Annotated[float, _Row("seconds", "sdk", "time for a health hook or a health check to answer")] = 5.0
    lease: Annotated[float, _Row("seconds", "runtime", "time to be given a lease")] = 5.0
    handshake: Annotated[float, _Row("seconds", "modules", "time for Init to arrive")] = 10.0
    channel_line: Annotated[int, _Row("bytes", "wire", "longest line on the module channel", least=16 * 1024)] = (
        1024 * 1024
    )
    script: Annotated[int, _Row("bytes", "deploy", "largest script")] = 1024 * 1024
    script_block: Annotated[
        int, _Row("bytes", "deploy", "largest metadata block of a script", least=1024, most=1024 * 1024)
    ] = 64 * 1024
    # measured: a list of numbers takes about 550 bytes of it for each byte of its text
    script_memory: Annotated[
        int, _Row("bytes", "deploy", "memory to read and compile a script once", least=128 * 1024 * 1024)
    ] = 768 * 1024 * 1024
    script_time: Annotated[
        float, _Row("seconds", "deploy", "processor time to read and compile a script once", least=1)
    ] = 5.0
    # what is kept of it is one blob of the state
    source_bytes: Annotated[
        int,
        _Row("bytes", "deploy", "files of a source together, fetched or unpacked", least=1024, most=60 * 1024 * 1024),
    ] = 32 * 1024 * 1024
    source_files: Annotated[int, _Row("files", "deploy", "files of a source", least=1)] = 2000
    source_time: Annotated[float, _Row("seconds", "deploy", "time to fetch a source", least=0.1)] = 30.0
    start: Annotated[float, _Row("seconds", "deploy", "time from spawn to announce")] = 30.0
    build: Annotated[float, _Row("seconds", "deploy", "time to lock and install")] = 600.0
    # resolving 30 environment markers takes 40 MiB, 100 of them more than 900
    lock_memory: Annotated[
        int,
        _Row(
            "bytes",
            "deploy",
            "memory of each process that resolves dependencies",
            least=256 * 1024 * 1024,
            most=1024**4,
        ),
    ] = 2 * 1024 * 1024 * 1024
    stop: Annotated[float, _Row("seconds", "deploy", "grace between stop and kill")] = 10.0
    builds: Annotated[int, _Row("builds", "deploy", "environments built at once")] = 2
    starts: Annotated[int, _Row("starts", "deploy", "instances started at once")] = 8
    # below the few MiB that the smallest takes, none is kept, and every start is made anew
    zygote_memory: Annotated[
        int, _Row("bytes", "keeper", "memory of all zygotes together, which fork instances", most=1024**4)
    ] = 512 * 1024 * 1024
    restarts: Annotated[int, _Row("starts", "deploy", "starts within `restart_window` before crash_loop")] = 5
    restart_window: Annotated[float, _Row("seconds", "deploy", "window in which starts are counted")] = 10.0
    # an ordinary script never meets them; one that needs more says so
    instance_memory: Annotated[
        int,
        _Row(
            "bytes",
            "runner",
            "private memory of each process of an instance",
            least=64 * 1024 * 1024,
            most=1024**5,
        ),
    ] = 4 * 1024 * 1024 * 1024
    # the kernel counts what its user runs: too few, and one instance is short of threads since others have them
    instance_processes: Annotated[
        int, _Row("threads", "runner", "threads that an instance may find started after it, its own included", least=16)
    ] = 4096
    instance_files: Annotated[int, _Row("files", "runner", "files and sockets that a process has open", least=64)] = (
        65_536
    )
    instance_disk: Annotated[
        int, _Row("bytes", "deploy", "what an instance may have in HOME and TMPDIR", least=1024 * 1024, most=1024**5)
    ] = 10 * 1024 * 1024 * 1024
    log_line: Annotated[int, _Row("bytes", "keeper", "longest log line kept; the rest is cut and marked", least=64)] = (
        64 * 1024
    )
    log_file: Annotated[int, _Row("bytes", "keeper", "size at which a log is rotated", least=4096)] = 4 * 1024 * 1024
    log_files: Annotated[int, _Row("files", "keeper", "rotated logs kept per instance")] = 3
    http_head: Annotated[int, _Row("bytes", "gateway", "request line and headers", least=256)] = 64 * 1024
    http_headers: Annotated[int, _Row("headers", "gateway", "number of headers of a request")] = 100
    # more than a request's: a page may set a hundred cookies, and an instance is no stranger
    http_answer_headers: Annotated[int, _Row("headers", "gateway", "number of headers of an instance's answer")] = 1000
    http_body: Annotated[int, _Row("bytes", "gateway, sdk", "request body")] = 10 * 1024 * 1024
    http_head_time: Annotated[float, _Row("seconds", "gateway", "time to send the head")] = 10.0
    http_idle: Annotated[float, _Row("seconds", "gateway", "keep-alive without a request")] = 60.0
    http_body_idle: Annotated[float, _Row("seconds", "gateway, sdk", "silence in the middle of a request body")] = 30.0
    http_connections: Annotated[int, _Row("connections", "gateway", "open client connections")] = 10_000
    http_pool: Annotated[int, _Row("connections", "gateway", "idle upstream connections per instance")] = 512
    package_document: Annotated[int, _Row("bytes", "packages", "largest package document")] = 8 * 1024 * 1024
    package_nodes: Annotated[
        int, _Row("values", "packages", "keys and values in one document, aliases written out")
    ] = 500_000
    package_depth: Annotated[int, _Row("levels", "packages", "deepest nesting in one document", most=512)] = 128
    http_pool_idle: Annotated[
        float, _Row("seconds", "gateway", "time an upstream connection stays idle; servers close at 5")
    ] = 4.0
    http_connect: Annotated[float, _Row("seconds", "gateway", "time to connect to an instance")] = 5.0
    env: Annotated[
        int, _Row("bytes", "deploy", "environment variables of a deployment together, as JSON", most=384 * 1024)
    ] = 256 * 1024
    # the kernel takes no longer one
    env_variable: Annotated[
        int, _Row("bytes", "deploy", "one environment variable, `NAME=value`", most=128 * 1024 - 1)
    ] = 128 * 1024 - 1
    state_value: Annotated[int, _Row("bytes", "state", "largest value under one key", least=64 * 1024)] = (
        4 * 1024 * 1024
    )
    state_blob: Annotated[int, _Row("bytes", "state", "largest content kept by its digest")] = 64 * 1024 * 1024
    state_group: Annotated[int, _Row("mutations", "state", "mutations that are applied together", least=16)] = 10_000
    jobs_payload: Annotated[int, _Row("bytes", "jobs", "arguments, result or step of a durable call", least=1024)] = (
        1024 * 1024
    )
    jobs_history: Annotated[int, _Row("steps", "jobs", "recorded steps of one durable call", least=16)] = 10_000
    jobs_running: Annotated[int, _Row("calls", "jobs", "durable calls that run at once in one process", least=1)] = 1000
    jobs_lease: Annotated[
        float, _Row("seconds", "jobs", "silence after which a worker's calls go to another", least=0.1)
    ] = 15.0
    jobs_live: Annotated[int, _Row("calls", "jobs", "durable calls of one component that have not ended")] = 1_000_000
    jobs_kept: Annotated[int, _Row("calls", "jobs", "ended durable calls that are kept")] = 1_000_000
    jobs_kept_for: Annotated[float, _Row("seconds", "jobs", "time that an ended durable call is kept")] = 2_592_000.0
    http_waiters: Annotated[int, _Row("requests", "gateway", "requests waiting for one deployment to start")] = 1000

    def named(self, name: str) -> int | float:
        """The limit of that name; `Refused` (code `bad_setting`) where there is none."""
        if name not in LIMITS:
            raise Refused(f"there is no limit {name!r}{nearest(name, LIMITS)}", code="bad_setting")
        found: int | float = getattr(self, name)
        return found

    def but(self, **differing: int | float) -> Self:
        """A copy with some limits changed; `Refused` (code `bad_setting`) for a name that is no limit."""
        for name in differing:
            self.named(name)
        return msgspec.structs.replace(self, **differing)

    def told(self, settings: Mapping[str, Any]) -> Self:
        """A copy with the limits that a launcher's settings name as `limits.NAME`."""
        said = {name: settings[f"limits.{name}"] for name in LIMITS if f"limits.{name}" in settings}
        return self.but(**said) if said else self

    def variables(self) -> dict[str, str]:
        """The limits that differ from their defaults, as environment variables for a child process."""
        return {
            row.variable: str(getattr(self, row.name))
            for row in LIMITS.values()
            if getattr(self, row.name) != row.default
        }


class Limit(msgspec.Struct, frozen=True):
    """A row of the table, as the docs and the settings read it."""

    name: str
    default: int | float
    unit: str
    enforced_by: str
    says: str
    least: float
    most: float

    @property
    def variable(self) -> str:
        return f"BEMA_LIMITS__{self.name.upper()}"


_YEAR = 365 * 24 * 3600
_MOST = {"seconds": _YEAR, "bytes": 1024 * 1024 * 1024}


def _table() -> dict[str, Limit]:
    found = {}
    for name, default in zip(Limits.__struct_fields__, Limits.__struct_defaults__, strict=True):
        row: _Row = Limits.__annotations__[name].__metadata__[0]
        least = row.least or (0.001 if row.unit == "seconds" else 1)
        most = row.most or _MOST.get(row.unit, 10_000_000)
        found[name] = Limit(name, default, row.unit, row.enforced_by, row.says, least, most)
    return found


LIMITS: dict[str, Limit] = _table()

DEFAULTS = Limits()
"""The defaults, for tests and for a part that is tried alone. A program asks `core.settings.current().limits`."""
