"""`Instance` of `dynamo.runtime`: an instance as one endpoint of it is seen."""

from __future__ import annotations

from typing import NamedTuple

from bema.core import instance


class TransportType(NamedTuple):
    """Where an instance is reached: `kind` is "unix" or "tcp"; the rest is its address."""

    kind: str
    address: str


class Instance(instance.Instance, frozen=True, kw_only=True, omit_defaults=True):
    """Ours, with the names of Dynamo for what it says. `str()` is namespace/component/endpoint/id."""

    endpoint: str = ""

    @classmethod
    def of(cls, found: instance.Instance, endpoint: str) -> Instance:
        said = {name: getattr(found, name) for name in found.__struct_fields__}
        return cls(**{**said, "endpoint": endpoint})

    @property
    def instance_id(self) -> int:
        return self.id

    @property
    def transport(self) -> TransportType:
        """The one that is tried first; empty for an instance that is not called."""
        return next(iter(self.transports()), TransportType("", ""))

    def transports(self) -> list[TransportType]:
        return [TransportType(*address.split(":", 1)) for address in self.addresses.get("rpc", ())]

    @property
    def device_type(self) -> str | None:
        """None: nothing here looks for devices."""
        return None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.component}/{self.endpoint}/{self.id}"
