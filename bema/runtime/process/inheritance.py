"""Inheritance: the channel that a launcher passed to this process, kept until the boot takes it.

A launched process inherits a socket whose number is in `BEMA_CHANNEL`, or is given it by the runner, which has read the first
line. Law: a process that was started by hand has none, and loads nothing of the conversation with a launcher.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bema.core.deferred import deferred
from bema.core.errors import Refused
from bema.core.limits import DEFAULTS, Limits
from bema.wire.module.handshake import Init, init_of

if TYPE_CHECKING:
    from bema.runtime.process import channel as channels
else:  # of a process that has one
    channels = deferred("bema.runtime.process.channel")

VARIABLE = "BEMA_CHANNEL"


class _Inherited:
    """The channel this process was given, until somebody takes it."""

    descriptor: int | None = None
    init: Init | None = None
    phases: dict[str, int] | None = None


def adopt(descriptor: int, init: dict[str, Any] | None = None, phases: dict[str, int] | None = None) -> None:
    """Give the process its channel. Whoever has read the first line already (the runner) passes it as `init`, and the
    milliseconds of what it did as `phases`."""
    _Inherited.descriptor = descriptor
    _Inherited.init = None if init is None else init_of(init)
    _Inherited.phases = phases


async def inherited(limits: Limits = DEFAULTS) -> channels.Channel | None:
    """The channel of this process, once; None for a process that was started by hand."""
    # taken out: a child of this process would speak on a descriptor that it does not have
    number = os.environ.pop(VARIABLE, None)
    if _Inherited.descriptor is None and number is not None:
        if not number.isdecimal():
            raise Refused(f"{VARIABLE} is {number!r}, which is not the number of a descriptor", code="bad_setting")
        adopt(int(number))
    descriptor, init, phases = _Inherited.descriptor, _Inherited.init, _Inherited.phases
    _Inherited.descriptor = _Inherited.init = _Inherited.phases = None
    if descriptor is None:
        return None
    channel = await channels.Channel.open(descriptor, init, limits)
    channel.phases = phases or {}
    return channel
