"""Secrets have no repr: not in a log, not in a traceback's locals, not at a prompt.

Law: a class that holds a token, a secret or an environment hides it where the class is written, so that nobody who prints one
has to think of it. Encoding is not affected: what is sent holds everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

HIDDEN = "..."


def hides(*names: str) -> Callable[[Any], str]:
    """A `__repr__` that shows of these fields only whether they are set; of a mapping, its keys."""

    def __repr__(self: Any) -> str:
        fields = getattr(self, "__struct_fields__", None) or self._fields
        shown = (f"{name}={_shown(getattr(self, name), hidden=name in names)}" for name in fields)
        return f"{type(self).__name__}({', '.join(shown)})"

    return __repr__


def _shown(value: Any, *, hidden: bool) -> str:
    if not hidden or not value:
        return repr(value)
    # the names help who debugs, and are no secret
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {HIDDEN}" for key in value) + "}"
    return HIDDEN
