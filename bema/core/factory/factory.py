"""The Factory class: builtins by decorator, one implementation chosen per name.

Law: registering never imports, and importing never happens under the lock.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar, cast

from bema.core.errors import BadDeclaration, NotFound

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Factory(Generic[T]):
    """Subclass it with the base type and a group root: `class CodecFactory(Factory[Codec], group="bema.codecs")`."""

    group: ClassVar[str] = ""
    _lock: ClassVar[threading.Lock]
    _known: ClassVar[dict[str, str | type]]

    def __init_subclass__(cls, group: str = "") -> None:
        cls.group = group
        cls._lock = threading.Lock()
        cls._known = {}

    @classmethod
    def register(cls, name: str) -> Callable[[C], C]:
        """Mark a class as the builtin of that name; the class is returned unchanged."""

        def mark(implementation: C) -> C:
            if not isinstance(implementation, type):
                raise BadDeclaration(f"{cls.__name__}.register({name!r}) takes a class, not {implementation!r}")
            with cls._lock:
                cls._known = {**cls._known, name: implementation}
            return implementation

        return mark

    @classmethod
    def register_lazy(cls, name: str, reference: str) -> None:
        """Name a builtin by `module:Class`; it is imported when first used."""
        with cls._lock:
            cls._known = {**cls._known, name: reference}

    @classmethod
    def names(cls) -> list[str]:
        return sorted(cls._known)

    @classmethod
    def lookup(cls, name: str) -> type[T]:
        """The chosen class of that name."""
        found = cls._known.get(name)
        if found is None:
            raise NotFound(f"{cls.__name__} has no {name!r}; it has {', '.join(cls.names()) or 'nothing'}")
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = getattr(importlib.import_module(module), attribute)
        return cast("type[T]", found)

    @classmethod
    def create_instance(cls, name: str, /, *args: Any, **kwargs: Any) -> T:
        """Call the chosen class of that name."""
        return cls.lookup(name)(*args, **kwargs)
