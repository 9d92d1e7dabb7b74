"""Isolation: how far a deployed script is kept from the rest of the machine, as it is asked for.

Law: the platform's setting is the floor. A script may ask for more of itself, and is never heard when it asks for less.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bema.core.errors import Refused
from bema.core.settings import ISOLATION, Settings
from bema.deploy.model.function import FunctionSettings

NONE, STANDARD, FILTERED, STRICT = ISOLATION
"""Ordered: each contains all that the one before it does."""
_LEVELS = {NONE: "basic", STANDARD: "basic", FILTERED: "network", STRICT: "full"}
_PORT = 65_535


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """`network` are the ports of outbound TCP; None: all. `read` and `write` are folders that are no instance's own."""

    kind: str = NONE
    network: tuple[int, ...] | None = None
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Isolation:
        """What the settings ask for; `Refused` (code `bad_setting`) for a network that is none, or a folder that cannot be given."""
        try:
            network = ports_of(settings.text("isolation.network"))
        except ValueError as error:
            raise _refused(settings, "isolation.network", str(error)) from error
        read, write = (_folders(settings, f"isolation.{name}") for name in ("read", "write"))
        return cls(kind=settings.text("isolation.kind"), network=network, read=read, write=write)

    @classmethod
    def asked_by(cls, settings: FunctionSettings) -> Isolation:
        """What a function asks for of itself; `ValueError` for a network that is none."""
        return cls(kind=settings.isolation or NONE, network=ports_of(settings.network or "any"))

    @property
    def level(self) -> str:
        """What a machine must offer for it, as one of the levels of the sandbox."""
        level = _LEVELS[self.kind]
        return "network" if self.network is not None and level == "basic" else level

    def above(self, floor: Isolation) -> Isolation:
        """The stricter of both, in each respect; folders are the floor's to give."""
        network = self.network if floor.network is None else floor.network
        if self.network is not None and floor.network is not None:
            network = tuple(port for port in self.network if port in floor.network)
        kind = max(self.kind, floor.kind, key=ISOLATION.index)
        return Isolation(kind=kind, network=network, read=floor.read, write=floor.write)


def _folders(settings: Settings, name: str) -> tuple[str, ...]:
    folders = tuple(folder for folder in settings.text(name).split(":") if folder)
    for folder in folders:
        # where it would start is another for each process that reads it
        if not folder.startswith("/"):
            raise _refused(settings, name, f"{folder!r} does not begin with /")
        # the platform's token and all that it starts lie there
        if name == "isolation.write" and Path(settings.text("state_dir")).resolve().is_relative_to(
            Path(folder).resolve()
        ):
            raise _refused(settings, name, f"{folder!r} holds the state directory")
    return folders


def _refused(settings: Settings, name: str, why: str) -> Refused:
    return Refused(f"setting {name}, from {settings.origin(name)}: {why}", code="bad_setting")


def ports_of(text: str) -> tuple[int, ...] | None:
    """`any` is None, `none` is no port, else numbers between commas; `ValueError` for anything else."""
    if text in ("", "any"):
        return None
    ports = () if text == "none" else tuple(text.split(","))
    if not all(port.strip().isdecimal() and 0 < int(port) <= _PORT for port in ports):
        raise ValueError(f"a network is any, none or ports such as 53,443, not {text!r}")
    return tuple(sorted({int(port) for port in ports}))
