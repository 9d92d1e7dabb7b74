"""What `bema up` hands over: plain data on an inherited descriptor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from .logs import Bounds


class ChildConfig(NamedTuple):
    """A child of the platform itself: it is started at once and again whenever it ends."""

    name: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    init: dict[str, Any]
    listen: str | None  # a listener of its own, kept across its restarts
    listen_fds: dict[str, int]  # public listeners it serves
    link: bool  # it may ask us for processes
    on_demand: bool = False  # started by the first who connects to its listener
    outlives: bool = False  # instances need it until their end


class Config(NamedTuple):
    state: Path
    lock: int  # held for as long as we live, by being open
    children: list[ChildConfig]
    up: dict[str, Any]  # what up.json says
    banner: str
    log: Bounds
    line: int  # longest line on a channel
    start: float  # seconds a child of the platform has to announce
    drain: float
    stop: float

    @classmethod
    def read(cls, descriptor: int) -> Config:
        with os.fdopen(descriptor) as file:
            data = json.load(file)
        return cls.of(data)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Config:
        config = cls(
            **{
                **data,
                "state": Path(data["state"]),
                "children": [ChildConfig(**child) for child in data["children"]],
                "log": Bounds(**data["log"]),
            }
        )
        # they came through exec, so they are inheritable; a child that had the lock would keep the
        # next `bema up` out after our death
        for held in (config.lock, *(fd for child in config.children for fd in child.listen_fds.values())):
            os.set_inheritable(held, False)
        return config
