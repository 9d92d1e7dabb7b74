"""What a function asks of the platform: how many instances, how patient, how much of the machine.

Laws: `None` is "not said", so what is said in several places is put together field by field: flags over the request, over
`[tool.bema]` of the script. Stored is what was said, and defaults are applied where it is read: a better default reaches what
is deployed. What needs a new process belongs to a version and never changes; the rest (`IN_PLACE`) is the deployment's.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from bema.core.errors import Invalid
from bema.core.instance import Terms
from bema.core.naming import shown
from bema.core.settings import ISOLATION
from bema.deploy.model.restarts import SECOND


class Scale(msgspec.Struct, frozen=True):
    """Bounds on the replicas of one version."""

    min: int = 0
    max: int = 10
    concurrency: int = 200  # requests that one replica has at a time
    idle_after: int = 600 * SECOND  # microseconds without use after which there need be none


class FunctionSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Times are in seconds, `memory` is in bytes.

    `secrets` are names of secrets of the same owner, each given as the variable of that name; `health` is a path that must
    answer below 400 before a version takes traffic; of `keep` the data is one instance's at a time; `sticky` is
    `header:NAME` or `cookie:NAME`, whose equal values go to one version; `isolation` and `network` are as in the settings of
    the platform, which they only make stricter.
    """

    min_instances: int | None = None
    max_instances: int | None = None
    concurrency: int | None = None
    idle_after: float | None = None
    timeout: float | None = None
    sticky: str | None = None
    memory: int | None = None
    keep: bool | None = None
    health: str | None = None
    isolation: str | None = None
    network: str | None = None
    secrets: tuple[str, ...] | None = None

    @property
    def scale(self) -> Scale:
        """The bounds that it says, or those of who says nothing."""
        usual = Scale()
        most = max(self.max_instances or max(usual.max, self.min_instances or 0), 1)
        return Scale(
            min=min(usual.min, most) if self.min_instances is None else self.min_instances,
            max=most,
            concurrency=self.concurrency or usual.concurrency,
            idle_after=usual.idle_after if self.idle_after is None else round(self.idle_after * SECOND),
        )

    @property
    def terms(self) -> Terms:
        """How requests are given to its instances."""
        return Terms(self.sticky or "", self.scale.concurrency, self.timeout or 0.0)

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


IN_PLACE: Final = frozenset(("min_instances", "max_instances", "concurrency", "idle_after", "timeout", "sticky"))
"""What can change while instances run."""

_MOST_INSTANCES = 10_000


def bytes_of(text: str) -> int:
    """A number of bytes: `512MB`, `2GiB`, or a plain number; `ValueError` for what is none."""
    found = re.fullmatch(r"([0-9]{1,15})(?:([kKmMgG])(i?)[bB]?)?", text)
    if found is None:
        raise ValueError(f"{text!r} is no size; write 512MB or 2GiB")
    size, unit = int(found[1]), 1024 if found[3] else 1000
    return size * unit ** ("kmg".index(found[2].lower()) + 1) if found[2] else size


def check_settings(settings: FunctionSettings) -> None:
    """`Invalid`, with the `name` of the setting, for a value that cannot be meant."""
    for name, (least, most) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise Invalid(f"{name} is {value:g}, not between {least:g} and {most:g}", name=name)
    least_there, most_there = settings.min_instances, settings.max_instances
    if least_there is not None and most_there is not None and least_there > most_there:
        raise Invalid(f"min_instances is {least_there}, more than max_instances, {most_there}", name="min_instances")
    for name, pattern, says in _TEXTS:
        text = getattr(settings, name)
        if text is not None and not pattern.fullmatch(text):
            raise Invalid(f"{name} is {shown(text)}, not {says}", name=name)
    for secret in settings.secrets or ():
        if not _SECRET.fullmatch(secret):
            raise Invalid(f"secrets: {shown(secret)} cannot be the name of a secret", name="secrets")
    if settings.keep and (settings.max_instances or 1) > 1:
        raise Invalid(
            "max_instances is more than 1, and what is kept is for one instance at a time", name="max_instances"
        )


_PORT: Final = r"(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_RANGES: Final = {
    "min_instances": (0, _MOST_INSTANCES),
    "max_instances": (1, _MOST_INSTANCES),
    "concurrency": (1, 100_000),
    "idle_after": (0.0, 365 * 86_400.0),
    "timeout": (0.001, 86_400.0),
    "memory": (16 * 1024**2, 1024**4),
}
_TEXTS: Final = (
    ("sticky", re.compile(r"(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}"), "header:NAME or cookie:NAME"),
    ("health", re.compile(r"/[!-~]{0,1023}"), "a path that begins with /"),
    ("isolation", re.compile("|".join(ISOLATION)), f"one of {', '.join(ISOLATION)}"),
    ("network", re.compile(rf"any|none|{_PORT}(?:, ?{_PORT})*"), "any, none or ports such as 53,443"),
)
_SECRET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
