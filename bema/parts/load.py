"""Loading: from an entry to its class, imported once, checked against the base type, and logged.

Laws: an import never runs under a lock of ours, and a thread inside of an import never waits for another thread's load.
Otherwise a thread that holds a module's import lock and needs a part, and one that loads the part and needs the module,
would wait for each other. A failure is kept, and not tried again until a refresh; one that met modules whose import had not
ended says nothing of afterwards, and is kept until these are through. Whatever a plugin's classes and exceptions do when they
are looked at is the plugin's failure, and escapes to nobody.
"""

from __future__ import annotations

import contextvars
import functools
import importlib
import inspect
import logging
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

import msgspec

from bema.parts.entries import PartEntry, PartState
from bema.parts.errors import LoadFailed
from bema.parts.provenance import is_editable, ownership_problem, record_digest, tampered

log = logging.getLogger("bema.plugins")

loading: contextvars.ContextVar[PartEntry | None] = contextvars.ContextVar("bema_factory_loading", default=None)
"""The plugin being imported in this context: what decorators in it register belongs to its distribution."""


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of loading an entry: a class, or a state with the reason and the error behind it."""

    implementation: type | None = None
    state: PartState = PartState.LOADED
    why: str = ""
    error: BaseException | None = None
    trace: str = ""


class Loader:
    """The outcomes of one factory. `publish` is told of each new one, outside the lock."""

    def __init__(self, misfit: Callable[[Any], str], publish: Callable[[PartEntry, Outcome], None]) -> None:
        self._misfit = misfit
        self._publish = publish
        self.outcomes: dict[PartEntry, Outcome] = {}
        self.too_early: dict[PartEntry, frozenset[str]] = {}  # failed, with the modules that were being imported
        self.renew()

    def renew(self) -> None:
        """Make new locks in a forked child, where the threads that held the old ones do not exist."""
        self._lock = threading.Lock()
        self._flights: dict[PartEntry, threading.Event] = {}

    def load(self, entry: PartEntry, *, mode: str = "all", reason: str = "") -> Outcome:
        """Load an entry, or return the outcome of the load that was made or is under way. Never raises for its import."""
        while True:
            with self._lock:
                known = self.outcomes.get(entry)
                flight = self._flights.get(entry)
                mine = known is None and flight is None
                if mine:
                    flight = self._flights[entry] = threading.Event()
            if known is not None:
                return known
            # whoever holds a module's import lock must not wait here: see the law above. It imports once more, which
            # the import system answers from sys.modules, and the first published outcome counts for both
            if mine or _inside_an_import():
                return self._fly(entry, mode, reason, flight if mine else None)
            if flight is not None:
                flight.wait()

    def forget(self, keep: Callable[[PartEntry, Outcome], bool]) -> None:
        """Drop outcomes, so that they are tried again."""
        with self._lock:
            self.outcomes = {entry: known for entry, known in self.outcomes.items() if keep(entry, known)}

    def forget_too_early(self) -> bool:
        """Drop the failures whose unfinished modules are imported by now; whether there were any."""
        with self._lock:
            over = {entry for entry, modules in self.too_early.items() if modules.isdisjoint(_unfinished())}
            self.too_early = {entry: modules for entry, modules in self.too_early.items() if entry not in over}
            self.outcomes = {entry: known for entry, known in self.outcomes.items() if entry not in over}
        return bool(over)

    def _fly(self, entry: PartEntry, mode: str, reason: str, flight: threading.Event | None) -> Outcome:
        try:
            outcome = self._outcome(entry, mode, reason)
            # asked now, inside of the import: a moment later its modules may be whole, and the failure would stay
            early = _unfinished() if isinstance(outcome.error, Exception) and _inside_an_import() else frozenset()
            with self._lock:
                first = entry not in self.outcomes
                if first and early:
                    self.too_early = {**self.too_early, entry: early}
                # copied, not changed: readers hold no lock
                if first:
                    self.outcomes = {**self.outcomes, entry: outcome}
                known = self.outcomes[entry]
        finally:
            if flight is not None:
                with self._lock:
                    del self._flights[entry]
                flight.set()
        # outside of the lock: it writes a log line, and a handler of logs may need a part itself
        if first:
            self._publish(entry, known)
        return known

    def _outcome(self, entry: PartEntry, mode: str, reason: str) -> Outcome:
        if entry.path and mode != "all" and (why := _unverified(entry, mode)):
            return Outcome(None, PartState.NOT_ALLOWED, why)
        module, _, attribute = entry.reference.partition(":")
        # before the import: a plugin that ends the process is named in the log all the same
        # the digest of what was there before it ran: code that runs may write its own RECORD
        digest = record_digest(entry.path) if entry.path else ""
        # our own are told of to who asks: the log of a service begins with what it says
        level = logging.DEBUG if entry.dist in ("", "bema") else logging.INFO
        log.log(
            level,
            "loading %s %r: %s from %s version %s, %s, RECORD sha256:%s, chosen by %s",
            *(entry.group, entry.name, entry.reference, entry.dist or "code", entry.version or "-"),
            *(entry.path or "-", digest or "-", reason or "request"),
        )
        value, error = _import(entry, module, attribute)
        if error is not None:
            return Outcome(None, PartState.FAILED, said(error), error, _trace(error))
        try:
            why = self._misfit(value)
        except Exception as raised:  # noqa: BLE001 - a metaclass answers every question about its classes, as it likes
            return Outcome(None, PartState.WRONG_TYPE, f"looking at it raised {said(raised)}", raised, _trace(raised))
        return Outcome(None, PartState.WRONG_TYPE, why) if why else Outcome(value)


def said(error: BaseException) -> str:
    """The type and the text of an exception, whose `__str__` may raise as well."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - it has no text, then
        return f"{type.__getattribute__(type(error), '__name__')}: (its text cannot be shown)"


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - as above
        return said(error)


def _unverified(entry: PartEntry, mode: str) -> str:
    if mode == "locked":
        if is_editable(entry.path):
            return f"{entry.dist} is editable: its RECORD does not cover its code"
        if changed := tampered(entry.path):
            return f"{changed} is not what the RECORD of {entry.dist} says"
    return ownership_problem(entry)


def _import(entry: PartEntry, module: str, attribute: str) -> tuple[Any, BaseException | None]:
    # a builtin imported by a plugin's import stays the plugin's doing
    mark = loading.set(entry if entry.path else loading.get())
    try:
        value = importlib.import_module(module)
        # a module may put another object into its place
        initialising = getattr(getattr(value, "__spec__", None), "_initializing", False)
        for part in attribute.split(".") if attribute else ():
            if initialising and not hasattr(value, part):
                # the class is further down the very file that asks for it: nobody's failure yet
                raise _Circular(f"{entry.label} was asked for while its module is being imported by this thread")
            value = getattr(value, part)
    # these are about the process, not about the plugin
    except (KeyboardInterrupt, GeneratorExit, MemoryError, _Circular):
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin's import may raise anything, SystemExit included
        return None, error
    finally:
        loading.reset(mark)
    return value, None


class _Circular(LoadFailed):
    """Not an outcome: the same load succeeds once the import is through."""


def _unfinished() -> frozenset[str]:
    """The modules whose import has begun and not ended."""
    # from the table of the module, as a module's own __getattr__ may do anything
    specs = [(name, getattr(module, "__dict__", {}).get("__spec__")) for name, module in list(sys.modules.items())]
    return frozenset(name for name, spec in specs if getattr(spec, "_initializing", False))


def _inside_an_import() -> bool:
    # the stack of this thread is the only record of the import locks that it holds
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
    return False


_NOT_MEMBERS = frozenset(
    {"__abstractmethods__", "__annotations__", "__dict__", "__doc__", "__init__", "__module__", "__new__"}
    | {"__parameters__", "__protocol_attrs__", "__slots__", "__subclasshook__", "__weakref__", "__orig_bases__"}
    | {
        "__class_getitem__",
        "__match_args__",
        "__static_attributes__",
        "__firstlineno__",
        "__callable_proto_members_only__",
        "__non_callable_proto_members__",
    }
    | {"__annotate__", "__annotate_func__", "__annotations_cache__", "__type_params__", "__hash__"}
)
_VARIADIC = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def misfit(value: Any, base: Any) -> str:
    """Why `value` cannot be an implementation of `base`; empty when it can."""
    if isinstance(value, types.ModuleType):
        return f"it is the module {value.__name__}; write `module:Class`"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"it is the function {value.__qualname__}, not a class"
    if not isinstance(value, type):
        return f"it is {value!r} ({type(value).__name__}), not a class"
    if isinstance(base, type) and base is not object:
        if getattr(base, "_is_protocol", False):
            return _protocol_misfit(value, base)
        if not issubclass(value, base):
            return f"{value.__qualname__} is not a subclass of {base.__module__}.{base.__qualname__}"
    # asked before any instance is made, so that the refusal names the part and not a constructor
    missing = sorted(getattr(value, "__abstractmethods__", ()))
    return f"{value.__qualname__} does not implement {', '.join(missing)}" if missing else ""


def _protocol_misfit(value: type, base: type) -> str:
    methods = members(base)
    # None is how a class takes an inherited method back (`__hash__ = None`)
    missing = [name for name in methods if getattr(value, name, None) is None]
    missing += [name for name in getattr(value, "__abstractmethods__", ()) if name not in missing]
    if missing:
        return f"{value.__qualname__} does not implement {', '.join(sorted(missing))} of {base.__qualname__}"
    for name, promised in methods.items():
        if why := _signature_misfit(_written(value, name), promised):
            return f"{value.__qualname__}.{name} cannot be called as {base.__qualname__}.{name} is: {why}"
    return ""


def _written(cls: type, name: str) -> Any:
    """An attribute as it stands in the class that has it, None where none has."""
    return next((vars(klass)[name] for klass in cls.__mro__ if name in vars(klass)), None)


@functools.cache
def members(protocol: type) -> dict[str, Any]:
    """The methods and properties a Protocol promises. Plain data members appear on instances only, so none is asked for."""
    found: dict[str, Any] = {}
    for klass in reversed(protocol.__mro__):
        if getattr(klass, "_is_protocol", False) and klass.__module__ != "typing":
            found |= {name: v for name, v in vars(klass).items() if name not in _NOT_MEMBERS and name[:4] != "_is_"}
    return {name: v for name, v in found.items() if not name.startswith("_abc_")}


def _signature_misfit(offered: Any, promised: Any) -> str:
    if not isinstance(promised, types.FunctionType) or not isinstance(offered, types.FunctionType):
        return ""  # properties, static and wrapped methods: presence is all that can be told
    if _written_alike(offered, promised):
        return ""
    ours, theirs = inspect.signature(promised), inspect.signature(offered)
    have, want = list(theirs.parameters.values()), list(ours.parameters.values())
    kinds = {p.kind for p in have}
    places = [p for p in have if p.kind in _POSITIONAL]
    wanted = [p for p in want if p.kind in _POSITIONAL]
    if len(places) < len(wanted) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        given = ", ".join(p.name for p in wanted)
        return f"it takes {len(places)} arguments where {len(wanted)} are given ({given})"
    # what the promise gives a default may be left out by callers
    optional = sum(p.default is not p.empty for p in wanted)
    for parameter in places[len(wanted) - optional :]:
        if parameter.default is parameter.empty:
            return f"it also needs {parameter.name!r}"
    return _keywords_misfit(have, want, kinds)


def _written_alike(offered: types.FunctionType, promised: types.FunctionType) -> bool:
    # most parts take just what their Protocol names, and `inspect` needs 40 us to see it: a millisecond of each start
    ours, theirs = promised.__code__, offered.__code__
    names = ours.co_argcount + ours.co_kwonlyargcount
    return (
        not offered.__dict__  # it may wrap another, whose signature counts
        and (ours.co_argcount, ours.co_kwonlyargcount, ours.co_flags & _VARIADIC)
        == (theirs.co_argcount, theirs.co_kwonlyargcount, theirs.co_flags & _VARIADIC)
        and ours.co_varnames[:names] == theirs.co_varnames[:names]
        and len(offered.__defaults__ or ()) >= len(promised.__defaults__ or ())
        and (offered.__kwdefaults__ or {}).keys() >= (promised.__kwdefaults__ or {}).keys()
    )


def _keywords_misfit(have: list[inspect.Parameter], want: list[inspect.Parameter], kinds: set[Any]) -> str:
    named = {p.name for p in have}
    asked = {p.name for p in want if p.kind is inspect.Parameter.KEYWORD_ONLY}
    lacking = sorted(asked - named)
    if lacking and inspect.Parameter.VAR_KEYWORD not in kinds:
        return f"it does not take {', '.join(lacking)}"
    for parameter in have:
        alone = parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in asked
        if alone and parameter.default is parameter.empty:
            return f"it also needs {parameter.name!r}"
    return ""
