"""The environment variables of a deployment: what a process can be given, and what its start can carry.

Law: whoever asks too much is told which variable it is, when it is deployed; one that was stored before there was a limit fails
its own start, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from bema.core.errors import Invalid, TooLarge
from bema.core.limits import limit


class EnvLimits(NamedTuple):
    """In bytes: one variable as `NAME=value`, which the kernel bounds too; all of them as JSON, as they travel."""

    one: int = int(limit("env_variable"))
    together: int = int(limit("env"))

    def check(self, env: Mapping[str, str]) -> None:
        """`Invalid` for what is no variable; `TooLarge` with the `name` of the largest, and the `limit`."""
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value:
                raise Invalid(f"env {name!r} cannot be an environment variable", name=name)
            if (size := len(f"{name}={value}".encode(errors="surrogatepass"))) > self.one:
                raise TooLarge(f"env {name!r} has {size} bytes; the limit is {self.one}", name=name, limit=self.one)
        # escaped, as it is on its way: what is not ASCII takes six bytes or more
        sizes = {name: len(json.dumps({name: value})) for name, value in env.items()}
        if (size := sum(sizes.values())) > self.together:
            name = max(sizes, key=sizes.__getitem__)
            raise TooLarge(
                f"env has {size} bytes as JSON, {sizes[name]} of them in {name!r}; the limit is {self.together}",
                name=name,
                limit=self.together,
            )
