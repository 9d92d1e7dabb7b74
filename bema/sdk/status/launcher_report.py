"""Telling the launcher how the instance serves, where the launcher writes its record.

Law: it is told what the record would have said, and only when that has changed; what the announcement says is not told
beside it.
"""

from __future__ import annotations

from bema.core.instance import Instance, State
from bema.runtime.process.channel import Channel
from bema.runtime.process.host import ServedComponent
from bema.wire.module.handshake import encode
from bema.wire.module.messages import Status

FEATURE = "status"


def status_of(record: Instance) -> Status:
    """What may change of a record, as the channel carries it. One that drains unasked takes nothing new either."""
    return Status(
        ready=record.ready and record.state is State.SERVING,
        stalled=record.stalled,
        operations=list(record.endpoints),
        data=record.data,
        digest=record.digest or None,
    )


class Reporter:
    """Reports on one component: a launcher knows its instance by one record, however much the process serves."""

    def __init__(self, channel: Channel, hosted: ServedComponent) -> None:
        self._channel = channel
        self._hosted = hosted
        self._said = b""  # as text, for what is published may change under us

    def __call__(self, hosted: ServedComponent, record: Instance) -> None:
        if hosted is not self._hosted:
            return
        status = status_of(record)
        before, self._said = self._said or encode(_as_announced(record)), encode(status)
        if self._said != before:
            self._channel.tell(status)


def _as_announced(record: Instance) -> Status:
    return Status(operations=list(record.endpoints), data={}, digest=record.digest or None)
