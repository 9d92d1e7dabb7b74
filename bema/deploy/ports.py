"""The public listeners: loopback, or for the API what was asked for, on ports that are kept from one `bema up` to the next."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from pathlib import Path
from typing import NamedTuple

from bema.core.errors import Refused
from bema.core.settings import Settings
from bema.deploy.keeper import roster

_BACKLOG = 4096


class PublicListener(NamedTuple):
    socket: socket.socket
    url: str

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])


def bind(settings: Settings, name: str, kept: int | None) -> PublicListener:
    """A public listener. A port that was asked for must be free; else it is the kept one, the default or any free one."""
    host, port = settings.text(f"{name}.host"), settings.number(f"{name}.port")
    _refuse_public(host, name)
    asked = settings.asked_for(f"{name}.port")
    for wish in (port,) if asked else (kept or port, port, 0):
        try:
            made = socket.create_server(
                (host, wish), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
            )
        except OSError as error:
            refusal = error
            continue
        shown = f"[{host}]" if ":" in host else host
        return PublicListener(made, f"http://{shown}:{made.getsockname()[1]}")
    raise Refused(
        f"{host}:{port} ({name}.port, {settings.origin(f'{name}.port')}) cannot be used: {refusal.strerror}",
        code="port_in_use",
    ) from refusal


def _refuse_public(host: str, name: str) -> None:
    # the control listener lets nobody in without a token or a key, wherever it listens
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback or name == "control":
            return
    why = "it is no address" if name == "control" else "the data listener asks for no key, so it is for loopback alone"
    raise Refused(
        f"{name}.host is {host}: {why}",
        code="not_supported",
        fix="Leave it at 127.0.0.1 and put a proxy of yours in front.",
    )


def kept_ports(state: Path) -> dict[str, int]:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kept = json.loads((state / "ports.json").read_text())
        return {name: port for name, port in kept.items() if isinstance(port, int)}
    return {}


def keep_ports(state: Path, ports: dict[str, int]) -> None:
    """So that URLs stay the same from one `bema up` to the next."""
    roster.write_atomically(state / "ports.json", json.dumps(ports))
