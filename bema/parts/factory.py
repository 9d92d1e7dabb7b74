"""The Factory class: builtins by decorator, plugins by entry point, one winner per name.

`class CodecFactory(Factory[Codec], group="bema.codecs")` is a whole new kind of part. Law: registering, listing, selecting
and discovering never import an implementation; the first `lookup` or `create_instance` of a name does.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, ForwardRef, Generic, TypeVar, cast, get_args, get_origin

import msgspec

from bema.core.errors import BadDeclaration
from bema.core.settings import Settings
from bema.parts import discover, selection
from bema.parts.discover import DiscoveryReport
from bema.parts.entries import Origin, PartEntry, key_of, read_reference, reference_of
from bema.parts.errors import ConstructionFailed, FactoryError, UnknownImplementation
from bema.parts.load import loading, misfit, said
from bema.parts.manifest import PartInfo, unfitting
from bema.parts.opening import Opens, Shared, fix_of, opened, unopenable
from bema.parts.registry import Registry
from bema.parts.selection import Change

T = TypeVar("T")
C = TypeVar("C", bound=type)
_RAISE: Any = object()


def _first_line(implementation: type) -> str:
    # of its own: an inherited docstring describes another class
    text = vars(implementation).get("__doc__") or ""
    return inspect.cleandoc(text).partition("\n")[0] if isinstance(text, str) else ""


class Factory(Generic[T]):
    """The names of one kind of part, with the implementation that wins each: subclass it with the base type.

    The base type is a class or a Protocol. Keywords of the subclass:

    - `group`: the root of the entry-point groups; plugins stand in `<group>.plugins`.
    - `api`: the version of the interface. A plugin is not loaded if its distribution requires another version of the
      project that the group is named after (`app` for `app.codecs`).
    - `default`: the name to use where nobody gives one; see `choose`.
    - `opens`: `"plain"` or `"waiting"` where parts are made with the settings by `open` or `open_waiting`. A class that
      cannot take settings is then refused when it is registered or loaded.

    - `metadata`: the type of what is said of an implementation (a struct, say), by a manifest or a decorator; see `info`.

    All errors are `FactoryError`s, but for `BadDeclaration` where code registers a class that does not fit.
    """

    group: ClassVar[str] = ""
    opens: ClassVar[Opens] = ""
    registry: ClassVar[Registry]
    _shared: ClassVar[Shared]

    def __init_subclass__(
        cls,
        *,
        group: str = "",
        api: str = "",
        default: str = "",
        opens: Opens = "",
        metadata: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.group = group or cls.group
        cls.opens = opens
        cls.registry = Registry(cls.__name__, cls.group, cls.misfit, api=api, default=default, metadata=metadata)
        cls._shared = Shared()

    @classmethod
    def base(cls) -> Any:
        """The base type as declared; a name in quotes is looked up in the module of the factory."""
        # `__orig_bases__` is where PEP 560 keeps `Factory[Codec]`; the bases proper hold only `Factory`
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
        """Why `value` cannot be an implementation, as a sentence; empty when it can."""
        return misfit(value, cls.base()) or (unopenable(value, cls.opens) if cls.opens else "")

    # naming

    @classmethod
    def register(
        cls, name: Any, override_priority: int = 0, *, description: str = "", metadata: Any = None
    ) -> Callable[[C], C]:
        """Mark a class as a builtin of that name, and return it unchanged.

        Registering the same class again changes nothing. Several classes may bear one name: the one with the highest
        `override_priority` wins. `description` and `metadata` are what `info` tells. `BadDeclaration` (a `TypeError`) for what
        does not implement the base type, and for metadata that are not of the factory's type.
        """
        return cls.register_all(name, override_priority=override_priority, description=description, metadata=metadata)

    @classmethod
    def register_all(
        cls, *names: Any, override_priority: int = 0, description: str = "", metadata: Any = None
    ) -> Callable[[C], C]:
        """As `register`, under several names; `BadDeclaration` likewise."""

        def mark(implementation: C) -> C:
            if why := cls.misfit(implementation):
                raise BadDeclaration(f"{cls.__name__}.register({names[0]!r}): {why}", fix=fix_of(why))
            for name in names:
                entry = cls._declared(name, reference_of(implementation), override_priority)
                entry = cls._described(entry, description or _first_line(implementation), metadata)
                cls.registry.declare(entry, implementation)
            return implementation

        return mark

    @classmethod
    def register_lazy(
        cls, name: Any, reference: str, override_priority: int = 0, *, description: str = "", metadata: Any = None
    ) -> None:
        """Name a builtin by `module:Class`, which is imported at its first use; `BadDeclaration` for any other form."""
        written, _, problem = read_reference(reference)
        if problem or ":" not in written:
            raise BadDeclaration(f"{cls.__name__}.register_lazy({name!r}): {reference!r} is not `module:Class`")
        entry = cls._described(cls._declared(name, written, override_priority), description, metadata)
        cls.registry.declare(entry, None)

    @classmethod
    def _described(cls, entry: PartEntry, description: str, metadata: Any) -> PartEntry:
        if metadata is not None:
            # encoded here, where the mistake was made, and not when somebody asks
            entry = msgspec.structs.replace(entry, metadata=msgspec.json.encode(metadata).decode())
            if why := unfitting(entry, cls.registry.metadata):
                raise BadDeclaration(f"{cls.__name__}.register({entry.name!r}): its metadata do not fit: {why}")
        return msgspec.structs.replace(entry, description=description) if description else entry

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

        Nothing is imported, and a plugin's fault is in the report instead of raised. `refresh` reads the disk again and
        retries what failed; `strict` raises `FactoryError` that lists every problem of the report.
        """
        return discover.discover(cls.registry, root or cls.group, refresh=refresh, strict=strict)

    # asking

    @classmethod
    def names(cls) -> list[str]:
        """Every name that has a candidate, sorted."""
        return sorted({found[0].name for found in cls.registry.table().values()})

    @classmethod
    def list_implementations(cls, name: Any, *, detail: bool = False, default: Any = _RAISE) -> list[dict[str, Any]]:
        """All candidates of a name, plugins first, as `{"name": str, "is_plugin": bool, "is_selected": bool}`.

        `detail=True` adds where each comes from, its state, and why. Where nothing has the name, `default` is returned;
        without one, `UnknownImplementation` (a `LookupError`) is raised.
        """
        rows = discover.rows(cls.registry, key_of(name), detail=detail)
        # an empty list would hide a mistyped name
        if rows:
            return rows
        if default is not _RAISE:
            return cast("list[dict[str, Any]]", default)
        raise UnknownImplementation(f"{cls.__name__}: {discover.unknown(cls.registry, name)}", name=str(name))

    @classmethod
    def info(cls, name: Any) -> PartInfo:
        """What is known of the implementation that wins a name: description, metadata, where it comes from. Imports nothing.

        `UnknownImplementation` and `LoadFailed` as `lookup`; `FactoryError` where its metadata are not of the factory's type.
        """
        return discover.info(cls.registry, name)

    @classmethod
    def iter_all(cls) -> Iterator[tuple[PartInfo, type[T]]]:
        """The winner of every name, sorted by name, with its class, which is imported when its turn comes.

        A name whose winner cannot be used is passed over, as `discover_plugins` reports it.
        """
        # one name at a time: a plugin that takes a second to import delays only who goes on to it
        for name in cls.names():
            try:
                found = cls.lookup(name)
                yield cls.info(name), found
            except FactoryError:
                continue

    @classmethod
    def name_of(cls, implementation: type) -> str:
        """The name that a class stands under; `UnknownImplementation` where it stands under none. Imports nothing."""
        return discover.name_of(cls.registry, implementation)

    @classmethod
    def lookup(cls, name: Any) -> type[T]:
        """The class that wins a name, imported now if it was not.

        `UnknownImplementation` where nothing has the name or is what was selected; `LoadFailed` where the winner cannot be
        imported, does not implement the base type, or is not allowed.
        """
        return cast("type[T]", cls.registry.ready.get(name) or cls.registry.lookup(name))

    @classmethod
    def choose(cls, name: Any = "") -> type[T]:
        """The class that wins `name`, after the installed plugins were discovered; raises what `lookup` raises.

        Without a `name`, the name in use counts. For the group `bema.discovery` that is `BEMA_DISCOVERY` in the
        environment, then `"bema.discovery"` in `[plugins.use]` of the settings files, then the factory's default.
        """
        cls.discover_plugins()
        return cls.lookup(name or cls.registry.name_in_use())

    @classmethod
    def open(cls, settings: Settings, name: Any = "") -> T:
        """A part of the class that `choose(name)` gives, opened with the settings; raises what either raises."""
        part: T = opened(cls.choose(name), settings.of(cls.group))
        return part

    @classmethod
    async def open_waiting(cls, settings: Settings, name: Any = "") -> T:
        """As `open`, for kinds of parts whose `open` may be an `async def`."""
        part = opened(cls.choose(name), settings.of(cls.group))
        return cast("T", await part if inspect.isawaitable(part) else part)

    @classmethod
    def create_instance(cls, name: Any, /, *args: Any, **kwargs: Any) -> T:
        """An instance of the class that wins `name`.

        Raises:
            ConstructionFailed: the constructor raised; its exception is the cause.
            UnknownImplementation, LoadFailed: as `lookup`.
        """
        registry = cls.registry
        # one dictionary look-up on the way every call takes
        implementation = registry.ready.get(name) or registry.lookup(name)
        try:
            instance: T = implementation(*args, **kwargs)
        except Exception as error:
            raise ConstructionFailed(
                f"{cls.__name__}: {implementation.__qualname__}(...) for {name!r} raised {said(error)}",
                name=str(name),
            ) from error
        return instance

    @classmethod
    def shared_instance(cls, name: Any, /, *args: Any, **kwargs: Any) -> T:
        """The one instance of the winner in this process, made at the first use.

        `FactoryError` where the arguments differ from those of the first use; otherwise as `create_instance`.
        """
        make = functools.partial(cls.create_instance, name, *args, **kwargs)
        return cast("T", cls._shared.get(cls.lookup(name), (args, kwargs), make))

    @classmethod
    def generation(cls) -> int:
        """A number that grows with every change: a caller who keeps an instance can tell that the choice may differ now."""
        return cls.registry.generation

    # choosing

    @classmethod
    def use_implementation(cls, name: Any, implementation: type | str | None, *, register: bool = False) -> Change:
        """Choose by class, class name, `dist:name` or `module:Class`; None gives the choice back to the defaults.

        Existing instances stay what they are. The returned `Change` undoes the choice by `restore()` or at the end of a
        `with`. `register=True` registers the class first. Before discovery, a `dist:name` is taken as it is and holds once
        the plugin is found.

        `UnknownImplementation` lists the candidates where `implementation` is none of them, `LoadFailed` says why one
        cannot be used, and in both cases nothing changes.
        """
        if register and isinstance(implementation, type):
            cls.register(name)(implementation)
        return selection.use(cls.registry, name, implementation)

    @classmethod
    @contextlib.contextmanager
    def override(cls, name: Any, implementation: type) -> Iterator[None]:
        """Make this class win `name` inside of the `with`, registered or not; afterwards everything is as before."""
        declared = cls.registry.declared
        with contextlib.ExitStack() as undo:
            cls.register(name)(implementation)
            if cls.registry.declared is not declared:
                undo.callback(selection.withdraw, cls.registry, key_of(name), implementation)
            undo.enter_context(selection.use(cls.registry, name, implementation))
            yield

    @classmethod
    def unregister(cls, name: Any, implementation: type | str) -> Change:
        """Hide a candidate, so that the next in order wins; the `Change` brings it back.

        `UnknownImplementation` where `implementation` is no candidate, or is several.
        """
        return selection.unregister(cls.registry, name, implementation)

    @classmethod
    def snapshot(cls) -> dict[str, Any]:
        """The choices of this process as plain data, for `restore` in a worker process."""
        return selection.snapshot(cls.registry)

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> None:
        """Choose as the process did that took the snapshot; fit for a worker pool's initializer.

        `UnknownImplementation` where the snapshot is of another group.
        """
        selection.restore(cls.registry, snapshot)
        for root in snapshot["roots"]:
            cls.discover_plugins(root)
