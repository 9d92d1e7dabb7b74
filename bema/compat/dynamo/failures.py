"""Errors as programs of Dynamo catch them: there, whatever a stream ends with is a `ValueError`.

Law: an error keeps its class, its code and all it says; it is a `ValueError` as well.
"""

from __future__ import annotations

from bema.core.errors import BemaError

_made: dict[type[BemaError], type[BemaError]] = {}


def as_there(error: BemaError) -> BemaError:
    """The same error, which `except ValueError` catches too."""
    if not isinstance(error, ValueError):
        error.__class__ = _both(type(error))
    return error


def _both(cls: type[BemaError]) -> type[BemaError]:
    if cls not in _made:
        said = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        _made[cls] = type(cls.__name__, (cls, ValueError), said)
    return _made[cls]
