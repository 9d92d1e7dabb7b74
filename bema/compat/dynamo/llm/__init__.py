"""`dynamo.llm`: what is of language models is refused with what to use; the exceptions are those of the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bema.compat.dynamo.llm.exceptions import HttpError
from bema.compat.dynamo.refused import MODELS, NAMES, NotHere
from bema.compat.dynamo.runtime import RouterMode

__all__ = ["HttpError", "RouterMode"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"dynamo.llm has no {name!r}")
        raise NotHere(f"dynamo.llm: {name} is not here", fix=NAMES.get(name, MODELS))
