"""The Factory class: builtins by decorator, plugins by entry point, one winner per name.

`class CodecFactory(Factory[Codec], group="bema.codecs")` is all there is to a new kind of part. Law: registering, listing,
selecting and discovering never import an implementation; the first `lookup` or `create_instance` of a name does.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, ForwardRef, Generic, TypeVar, cast, get_args, get_origin

from bema.core.errors import BadDeclaration
from bema.core.settings import Settings
from bema.parts import discover, selection
from bema.parts.discover import DiscoveryReport
from bema.parts.entries import Origin, PartEntry, key_of, read_reference, reference_of
from bema.parts.errors import ConstructionFailed, UnknownImplementation
from bema.parts.load import loading, misfit
from bema.parts.opening import Opens, Shared, fix_of, opened, unopenable
from bema.parts.registry import Registry
from bema.parts.selection import Change

T = TypeVar("T")
C = TypeVar("C", bound=type)
_RAISE: Any = object()


class Factory(Generic[T]):
    """Subclass it with the base type and the root of its entry-point groups.

    `api` is the version of the interface; a plugin whose distribution depends on the project that the group is named
    after (`app` for `app.codecs`) in a version that excludes it is not loaded. The base type may be a class or a Protocol.
    `default` is the name that holds where nobody gives one: see `choose`. `opens` says how parts are made by `open` and
    `open_waiting`: with the settings, so that a class that cannot take them is refused before anybody needs it.
    """

    group: ClassVar[str] = ""
    opens: ClassVar[Opens] = ""
    registry: ClassVar[Registry]
    _shared: ClassVar[Shared]

    def __init_subclass__(
        cls, *, group: str = "", api: str = "", default: str = "", opens: Opens = "", **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.group = group or cls.group
        cls.opens = opens
        cls.registry = Registry(cls.__name__, cls.group, cls.misfit, api=api, default=default)
        cls._shared = Shared()

    @classmethod
    def base(cls) -> Any:
        """The base type as declared; a name in quotes is looked up in the module of the factory."""
        for klass in cls.__mro__:
            for base in vars(klass).get("__orig_bases__", ()):
                if isinstance(get_origin(base), type) and issubclass(get_origin(base), Factory):
                    argument = get_args(base)[0]
                    if isinstance(argument, ForwardRef):
                        return getattr(sys.modules[klass.__module__], argument.__forward_arg__, object)
                    return get_origin(argument) or argument
        return object

    @classmethod
    def misfit(cls, value: Any) -> str:
        """Why `value` cannot be an implementation; empty when it can."""
        return misfit(value, cls.base()) or (unopenable(value, cls.opens) if cls.opens else "")

    # naming

    @classmethod
    def register(cls, name: Any, override_priority: int = 0) -> Callable[[C], C]:
        """Mark a class as a builtin of that name; the class is returned unchanged.

        The same class again is nothing new; another class of the same name stands beside it, the higher
        `override_priority` first. `BadDeclaration` (a `TypeError`) for what is not a whole subclass of the base type.
        """
        return cls.register_all(name, override_priority=override_priority)

    @classmethod
    def register_all(cls, *names: Any, override_priority: int = 0) -> Callable[[C], C]:
        """As `register`, under several names."""

        def mark(implementation: C) -> C:
            if why := cls.misfit(implementation):
                raise BadDeclaration(f"{cls.__name__}.register({names[0]!r}): {why}", fix=fix_of(why))
            for name in names:
                entry = cls._declared(name, reference_of(implementation), override_priority)
                cls.registry.declare(entry, implementation)
            return implementation

        return mark

    @classmethod
    def register_lazy(cls, name: Any, reference: str, override_priority: int = 0) -> None:
        """Name a builtin by `module:Class`; it is imported when it is first used."""
        written, _, problem = read_reference(reference)
        if problem or ":" not in written:
            raise BadDeclaration(f"{cls.__name__}.register_lazy({name!r}): {reference!r} is not `module:Class`")
        cls.registry.declare(cls._declared(name, written, override_priority), None)

    @classmethod
    def _declared(cls, name: Any, reference: str, priority: int) -> PartEntry:
        key_of(name)
        text = str(getattr(name, "value", name))
        plugin = loading.get()  # code that runs because a plugin is being imported belongs to its distribution
        if plugin is None:
            return PartEntry(group=cls.group, name=text, reference=reference, origin=Origin.CODE, priority=priority)
        return PartEntry(
            group=cls.group,
            name=text,
            reference=reference,
            origin=plugin.origin,
            dist=plugin.dist,
            version=plugin.version,
            path=plugin.path,
        )

    @classmethod
    def discover_plugins(cls, root: str = "", *, refresh: bool = False, strict: bool = False) -> DiscoveryReport:
        """Read the entry points of `<root>.plugins` (default: the factory's group), and of the bare group as builtins.

        Imports nothing and never raises for a plugin's fault: the report tells. `refresh` looks at the disk again and
        retries what failed; `strict` raises `FactoryError` with everything that is not as it should be.
        """
        return discover.discover(cls.registry, root or cls.group, refresh=refresh, strict=strict)

    # asking

    @classmethod
    def names(cls) -> list[str]:
        """Every name there is a candidate for."""
        return sorted({found[0].name for found in cls.registry.table().values()})

    @classmethod
    def list_implementations(cls, name: Any, *, detail: bool = False, default: Any = _RAISE) -> list[dict[str, Any]]:
        """All candidates of a name, plugins first, as `{"name", "is_plugin", "is_selected"}`.

        `detail=True` adds provenance, state and reasons. `UnknownImplementation` (a `LookupError`) for a name that
        nothing has, unless there is a `default`.
        """
        rows = discover.rows(cls.registry, key_of(name), detail=detail)
        # an empty list would hide a mistyped name
        if rows:
            return rows
        if default is not _RAISE:
            return cast("list[dict[str, Any]]", default)
        raise UnknownImplementation(f"{cls.__name__}: {discover.unknown(cls.registry, name)}", name=str(name))

    @classmethod
    def lookup(cls, name: Any) -> type[T]:
        """The winner's class, imported now if it was not."""
        return cast("type[T]", cls.registry.ready.get(name) or cls.registry.lookup(name))

    @classmethod
    def choose(cls, name: Any = "") -> type[T]:
        """The class to make a part of: how a program asks that takes plugins as they are installed.

        Of `name` or, without one, of the name in use: `BEMA_DISCOVERY=memory` in the environment, then `"bema.discovery" =
        "memory"` in `[plugins.use]`, then the factory's default. The first question discovers the plugins.
        """
        cls.discover_plugins()
        return cls.lookup(name or cls.registry.name_in_use())

    @classmethod
    def open(cls, settings: Settings, name: Any = "") -> T:
        """A part, of the class that `choose(name)` gives, opened with the settings. For kinds with a plain `open`."""
        part: T = opened(cls.choose(name), settings.of(cls.group))
        return part

    @classmethod
    async def open_waiting(cls, settings: Settings, name: Any = "") -> T:
        """As `open`, for kinds whose `open` may be `async def`."""
        part = opened(cls.choose(name), settings.of(cls.group))
        return cast("T", await part if inspect.isawaitable(part) else part)

    @classmethod
    def create_instance(cls, name: Any, /, *args: Any, **kwargs: Any) -> T:
        """An instance of the winner. What its constructor raises is the cause of a `ConstructionFailed`."""
        registry = cls.registry
        # one dictionary look-up on the way every call takes
        implementation = registry.ready.get(name) or registry.lookup(name)
        try:
            instance: T = implementation(*args, **kwargs)
        except Exception as error:
            raise ConstructionFailed(
                f"{cls.__name__}: {implementation.__qualname__}(...) for {name!r} raised {type(error).__name__}: {error}",
                name=str(name),
            ) from error
        return instance

    @classmethod
    def shared_instance(cls, name: Any, /, *args: Any, **kwargs: Any) -> T:
        """The one instance of the winner in this process, made on first use; other arguments than then are an error."""
        make = functools.partial(cls.create_instance, name, *args, **kwargs)
        return cast("T", cls._shared.get(cls.lookup(name), (args, kwargs), make))

    @classmethod
    def generation(cls) -> int:
        """Grows with every change; who keeps an instance can notice that the choice may be another now."""
        return cls.registry.generation

    # choosing

    @classmethod
    def use_implementation(cls, name: Any, implementation: type | str | None, *, register: bool = False) -> Change:
        """Choose by class, class name, `dist:name` or `module:Class`; None gives the choice back to the defaults.

        Instances that exist stay what they are. Returns a `Change`, which undoes it by `restore()` or at the end of a
        `with`. `UnknownImplementation` lists the candidates when it is none of them, and nothing changes; before
        discovery a `dist:name` waits for it. `register=True` adds a class that is not registered yet.
        """
        if register and isinstance(implementation, type):
            cls.register(name)(implementation)
        return selection.use(cls.registry, name, implementation)

    @classmethod
    @contextlib.contextmanager
    def override(cls, name: Any, implementation: type) -> Iterator[None]:
        """Within the `with`, `name` is this class, registered or not; afterwards all is as before."""
        declared = cls.registry.declared
        with contextlib.ExitStack() as undo:
            cls.register(name)(implementation)
            if cls.registry.declared is not declared:
                undo.callback(selection.withdraw, cls.registry, key_of(name), implementation)
            undo.enter_context(selection.use(cls.registry, name, implementation))
            yield

    @classmethod
    def unregister(cls, name: Any, implementation: type | str) -> Change:
        """Take a candidate away; if it was selected the next in order takes its place. The `Change` brings it back."""
        return selection.unregister(cls.registry, name, implementation)

    @classmethod
    def snapshot(cls) -> dict[str, Any]:
        """What another process must know to choose alike: plain data, for `restore` in a worker."""
        return selection.snapshot(cls.registry)

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> None:
        """Choose as the process did that took the snapshot. Fit for a worker's initializer."""
        selection.restore(cls.registry, snapshot)
        for root in snapshot["roots"]:
            cls.discover_plugins(root)
