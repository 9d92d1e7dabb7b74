"""Launcher report: tells the launcher how an instance serves, where the launcher writes the instance's record.

Law: a report holds what the instance would have written into its record, and is sent only when that has changed since the
announcement or the last report.
"""

from __future__ import annotations

from bema.core.instance import Instance, State
from bema.runtime.process.channel import Channel
from bema.runtime.process.host import ServedComponent
from bema.wire.module.handshake import encode
from bema.wire.module.messages import Status

FEATURE = "status"


def status_of(record: Instance) -> Status:
    """The part of a record that may change, as the channel carries it."""
    # an instance that drains by itself takes no new calls, which the launcher knows only as "not ready"
    return Status(
        ready=record.ready and record.state is State.SERVING,
        stalled=record.stalled,
        operations=list(record.endpoints),
        data=record.data,
        digest=record.digest or None,
    )


class Reporter:
    """Reports on one component: a launcher has one record for its process, however many components that serves."""

    def __init__(self, channel: Channel, hosted: ServedComponent) -> None:
        self._channel = channel
        self._hosted = hosted
        self._said = b""  # encoded, since the service may change the data that it published

    def __call__(self, hosted: ServedComponent, record: Instance) -> None:
        if hosted is not self._hosted:
            return
        status = status_of(record)
        before, self._said = self._said or encode(_as_announced(record)), encode(status)
        if self._said != before:
            self._channel.tell(status)


def _as_announced(record: Instance) -> Status:
    return Status(operations=list(record.endpoints), data={}, digest=record.digest or None)
