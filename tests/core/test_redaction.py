"""What is secret is shown by nobody who prints its holder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Any

import msgspec
import pytest

import bema
from bema.core.instance import Instance
from bema.core.limits import Limits
from bema.deploy.model.function import FunctionSettings

SECRET = re.compile(r"^(auth_)?token$|^secret(?!s_fd$)|^password$|^credential|^env$")
CANARY = "canary-7f3a"


def fields_of(cls: Any) -> tuple[str, ...]:
    fields = getattr(cls, "__struct_fields__", None) or getattr(cls, "_fields", ())
    return fields if isinstance(fields, tuple) else ()


def holders() -> list[Any]:
    """Every record of bema with a field that is secret by its name, or a secret's value."""
    found = {}
    for info in pkgutil.walk_packages(bema.__path__, "bema."):
        # the first two are started by path; what `compat` does not have says so when it is imported
        if info.name.startswith(("bema.runner", "bema.deploy.keeper", "bema.compat")) or info.name.endswith("__main__"):
            continue
        for name, cls in vars(importlib.import_module(info.name)).items():
            # of a function's settings `secrets` are names
            if not inspect.isclass(cls) or cls.__module__ != info.name or cls in (Limits, FunctionSettings):
                continue
            fields = fields_of(cls)
            secret = [
                field for field in fields if SECRET.match(field) or (cls.__name__ == "Secret" and field == "value")
            ]
            if secret:
                found[f"{info.name}.{name}"] = (cls, secret)
    return [pytest.param(cls, names, id=name) for name, (cls, names) in sorted(found.items())]


@pytest.mark.parametrize(("cls", "names"), holders())
def test_a_secret_has_no_repr(cls, names):
    fields = fields_of(cls)
    given = {name: {CANARY: CANARY} if name == "env" else CANARY for name in names}
    if issubclass(cls, msgspec.Struct):
        required = {field.name: None for field in msgspec.structs.fields(cls) if field.required}
    else:
        required = dict.fromkeys(name for name in fields if name not in cls._field_defaults)
    value = cls(**{**required, **given})
    for text in (repr(value), str(value), f"{value}", f"{[value]}"):
        assert text.count(CANARY) == sum(name == "env" for name in names), "the names of variables are no secret"
        assert all(f"{name}=" in text for name in fields)


def test_what_is_sent_holds_everything():
    one = Instance(id=1, namespace="a", component="b", token=CANARY)
    assert CANARY not in repr(one)
    assert CANARY in msgspec.json.encode(one).decode()
    assert msgspec.json.decode(msgspec.json.encode(one), type=Instance) == one
