"""The environment variables of a deployment: what a process can be given, and what its start can carry.

Law: whoever asks too much is told which variable it is, when it is deployed; one that was stored before there was a limit fails
its own start, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from bema.core.errors import Invalid, TooLarge
from bema.core.limits import Limits
from bema.core.naming import shown

_AROUND = len(json.dumps({"": ""}))


def check_env(env: Mapping[str, str], limits: Limits) -> None:
    """`Invalid` for what is no variable; `TooLarge` with the `name` of the largest, and the `limit`."""
    # each takes eight bytes around it, and to write half a million of them takes a second
    if len(env) * _AROUND > limits.env:
        message = f"env has {len(env)} variables, which take more than the limit of {limits.env} bytes as JSON"
        raise TooLarge(message, name=next(iter(env)), limit=limits.env)
    most = limits.env_variable
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise Invalid(f"env {shown(name)} cannot be an environment variable", name=name)
        if (size := len(f"{name}={value}".encode(errors="surrogatepass"))) > most:
            raise TooLarge(f"env {shown(name)} has {size} bytes; the limit is {most}", name=name, limit=most)
    # escaped, as it is on its way: what is not ASCII takes six bytes or more
    sizes = {name: len(json.dumps({name: value})) for name, value in env.items()}
    if (size := sum(sizes.values())) > limits.env:
        name = max(sizes, key=sizes.__getitem__)
        raise TooLarge(
            f"env has {size} bytes as JSON, {sizes[name]} of them in {shown(name)}; the limit is {limits.env}",
            name=name,
            limit=limits.env,
        )
