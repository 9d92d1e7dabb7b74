"""`[tool.bema]`: what a script says of how it is to be run, as settings and variables of a function.

Law: a key that means nothing is refused, since whoever wrote it meant something. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from bema.core.errors import BemaError, Invalid
from bema.deploy.model.function import FunctionSettings, bytes_of, check_settings
from bema.deploy.model.isolation import ports_of

KEYS: Final = frozenset(("entry", "env", *FunctionSettings.__struct_fields__))
"""What may stand in the table."""

Wrong = Callable[[str, str], BemaError]
"""`(key, problem)`: the error that its author should see."""


def read_function(table: dict[str, Any], wrong: Wrong) -> tuple[FunctionSettings, dict[str, str]]:
    """The settings and the variables of a table; raises what `wrong` makes of a key that does not fit."""
    env, said = table.get("env", {}), FunctionSettings()
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise wrong("env", "must be a table of strings")
    for key, value in table.items():
        if key not in KEYS:
            raise wrong(key, "is no setting of a function")
        if key not in ("entry", "env"):
            said = _setting(key, value, wrong).over(said)
    try:
        check_settings(said)
    except Invalid as error:
        raise wrong(str(error.details["name"]), f"cannot hold: {error.message}") from error
    return said, env


def _setting(key: str, value: Any, wrong: Wrong) -> FunctionSettings:
    try:
        if key == "memory" and isinstance(value, str):
            value = bytes_of(value)
        setting = msgspec.convert({key: value}, FunctionSettings)
        ports_of(setting.network or "any")
        return setting
    except msgspec.ValidationError as error:
        raise wrong(key, f"does not fit: {error}") from error
    except ValueError as error:
        raise wrong(key, str(error)) from error
