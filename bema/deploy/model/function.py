"""What a function asks of the platform: how many instances, how patient, how much of the machine.

Laws: `None` is "not said", so what is said in several places is put together field by field: flags over the request, over
`[tool.bema]` of the script. Stored is what was said, and defaults are applied where it is read: a better default reaches what
is deployed. What needs a new process belongs to a version and never changes; the rest (`IN_PLACE`) is the deployment's.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bema.deploy.model.restarts import SECOND


class Scale(msgspec.Struct, frozen=True):
    """Bounds on the replicas of one version."""

    min: int = 1
    max: int = 1
    concurrency: int = 1  # requests that one replica is meant to have at a time
    linger: int = 60 * SECOND  # microseconds that a replica too many is kept


class FunctionSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Times are in seconds, `memory` is in bytes, `cpu` in processors.

    `secrets` are names of secrets of the same owner, each given as the variable of that name; `health` is a path that must
    answer below 400 before a version takes traffic; of `keep` the data is one instance's at a time; `access` is `public` or
    `private`; `sticky` is `header:NAME` or `cookie:NAME`, whose equal values go to one version; `isolation` and
    `network` are as in the settings of the platform, which they only make stricter.
    """

    min_instances: int | None = None
    max_instances: int | None = None
    concurrency: int | None = None
    idle_after: float | None = None
    timeout: float | None = None
    access: str | None = None
    sticky: str | None = None
    memory: int | None = None
    cpu: float | None = None
    keep: bool | None = None
    health: str | None = None
    isolation: str | None = None
    network: str | None = None
    secrets: tuple[str, ...] | None = None

    def over(self, other: FunctionSettings) -> FunctionSettings:
        """What is said here, and where nothing is, what `other` says."""
        return msgspec.structs.replace(other, **_said(self))

    def in_place(self) -> FunctionSettings:
        """The part that needs no new process."""
        return FunctionSettings(**{name: value for name, value in _said(self).items() if name in IN_PLACE})

    def of_version(self) -> FunctionSettings:
        """The part that a process is started with."""
        return FunctionSettings(**{name: value for name, value in _said(self).items() if name not in IN_PLACE})


def _said(settings: FunctionSettings) -> dict[str, Any]:
    values = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return {name: value for name, value in values.items() if value is not None}


IN_PLACE: Final = frozenset(
    ("min_instances", "max_instances", "concurrency", "idle_after", "timeout", "access", "sticky")
)
"""What can change while instances run."""
