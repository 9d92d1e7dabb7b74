"""Registry: the state behind one factory.

Laws: a table is replaced and never changed in place, so that readers need no lock. The lock is held only to publish a table,
never during an import, a read from disk or a log line.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from bema.core.naming import nearest
from bema.parts import configured
from bema.parts.entries import PartEntry, key_of
from bema.parts.errors import FactoryError, LoadFailed, UnknownImplementation
from bema.parts.load import Loader, Outcome, log
from bema.parts.opening import fix_of
from bema.parts.provenance import record_digest
from bema.parts.resolve import Candidate, Choice, Known, Reason, Selection, judge, resolve


class Declared(msgspec.Struct, frozen=True):
    """What code named: an entry, and its class unless it is lazy."""

    entry: PartEntry
    implementation: type | None = None


class Registry:
    def __init__(
        self,
        title: str,
        group: str,
        misfit: Callable[[Any], str],
        *,
        api: str = "",
        default: str = "",
        metadata: Any = None,
    ) -> None:
        self.title = title
        self.group = group
        self.api = api
        self.default = default  # the name that holds where nobody gives one
        self.metadata = metadata  # the type of what manifests and decorators say of an implementation
        self.lock = threading.Lock()
        self.loader = Loader(misfit, self._published)
        self.declared: dict[tuple[str, str], Declared] = {}
        self.discovered: dict[str, tuple[PartEntry, ...]] = {}
        self.gone: frozenset[PartEntry] = frozenset()
        self.hidden: frozenset[tuple[str, str]] = frozenset()  # (key, reference) of what was unregistered
        self.selected: dict[str, str] = {}
        self.generation = 0
        self.ready: dict[Any, type] = {}
        self.reports: dict[str, tuple[Any, ...]] = {}
        self.told: frozenset[Any] = frozenset()
        self._table: dict[str, tuple[PartEntry, ...]] | None = None
        self._digests: dict[str, str] = {}
        _registries.add(self)

    def renew(self) -> None:
        """Make a new lock in a forked child, where the thread that held the old one does not exist."""
        self.lock = threading.Lock()
        self.loader.renew()

    # what is known

    def table(self) -> dict[str, tuple[PartEntry, ...]]:
        """Every entry by the key of its name; a class that is both declared and a plugin's is the plugin's."""
        # The table is made without the lock. If another thread changed something meanwhile, ours is used but not kept.
        table, generation = self._table, self.generation
        if table is None:
            entries = self._merged()
            grouped: dict[str, list[PartEntry]] = {}
            for entry in entries:
                if (entry.key, entry.reference) not in self.hidden:
                    grouped.setdefault(entry.key, []).append(entry)
            table = {key: tuple(found) for key, found in grouped.items()}
            with self.lock:
                if generation == self.generation:
                    self._table = table
        return table

    def _merged(self) -> list[PartEntry]:
        """The discovered and the declared entries; a class that is both has one, the plugin's."""
        discovered = dict.fromkeys(e for found in self.discovered.values() for e in found)
        # each table is read once: another thread may publish the next one meanwhile
        outcomes, declared = self.loader.outcomes, self.declared
        # a failed load has no class; as one it would equal every lazy builtin, whose class is not known yet
        loaded = {e: (e.key, id(outcomes[e].implementation)) for e in discovered if _loaded(outcomes.get(e))}
        # a shadowed copy claims nothing: its class is the first copy's
        plugins = {(e.key, e.reference) for e in discovered if e.is_plugin and not e.shadowed_by}
        # by id: a metaclass may make its classes unhashable, or their comparison raise
        classes_of_plugins = {place for e, place in loaded.items() if e.is_plugin}
        classes = {(place[0], id(d.implementation)) for place, d in declared.items() if d.implementation is not None}
        found = [
            e
            for e in discovered
            if e.is_plugin or ((e.key, e.reference) not in declared and loaded.get(e) not in classes)
        ]
        return found + [
            d.entry
            for place, d in declared.items()
            if place not in plugins and (place[0], id(d.implementation)) not in classes_of_plugins
        ]

    def known(self, entry: PartEntry) -> Known:
        gone = entry in self.gone
        outcome = self.loader.outcomes.get(entry)
        if outcome is not None:
            failed = None if outcome.implementation is not None else outcome.state
            return Known(failed is None, failed, outcome.why, gone)
        declared = self.declared.get((entry.key, entry.reference))
        return Known(
            declared is not None and declared.entry == entry and declared.implementation is not None, gone=gone
        )

    def candidates(self, key: str) -> list[Candidate]:
        # what failed because the program was half imported may work now
        if self.loader.too_early and self.loader.forget_too_early():
            self.change()
        entries = self.table().get(key, ())
        return judge(entries, configured.current(), known=self.known, digest=self._digest, api=self.api)

    def choice(self, key: str, candidates: list[Candidate] | None = None) -> Choice:
        found = self.candidates(key) if candidates is None else candidates
        return resolve(key, found, configured.current(), self.selection(key))

    def selection(self, key: str) -> Selection:
        # the environment is read when a choice is made, and the choice is kept until something changes
        chosen = configured.current().select.get(self.group, {}).get(key)
        return Selection(self.selected.get(key), _said(variable(self.group, key)), chosen)

    def name_in_use(self) -> str:
        """The name that holds where code gives none; empty where there is none."""
        asked = _said(variable(self.group)) if self.default else None
        return asked or configured.current().use.get(self.group, self.default)

    def _digest(self, path: str) -> str:
        # per path and not per entry: a distribution with forty entry points has one RECORD
        if path not in self._digests:
            self._digests[path] = record_digest(path)
        return self._digests[path]

    # what is made of it

    def lookup(self, name: Any) -> type:
        """The class of the winner, loaded now if it was not; raises what `Factory.lookup` names."""
        key = key_of(name)
        # a load that fails changes the state of its entry, so that the next round chooses another or says why there is none
        while True:
            generation = self.generation
            choice = self.choice(key)
            if choice.winner is None:
                raise self.error(key, choice)
            implementation = self.implementation(choice.winner, choice.reason)
            if implementation is not None:
                with self.lock:
                    # only an answer to the current question is kept, and none that stands in for the time of an import
                    if generation == self.generation and not self.loader.too_early:
                        self.ready[name] = implementation
                return implementation

    def implementation(self, entry: PartEntry, reason: Reason) -> type | None:
        """The class of an entry, or None after a failed load (its outcome says why)."""
        declared = self.declared.get((entry.key, entry.reference))
        if declared is not None and declared.entry == entry and declared.implementation is not None:
            return declared.implementation
        return self.loader.load(entry, mode=configured.current().mode, reason=reason.value).implementation

    def class_of(self, entry: PartEntry) -> type | None:
        """The class of an entry as far as it is known without loading it."""
        outcome = self.loader.outcomes.get(entry)
        if outcome is not None:
            return outcome.implementation
        declared = self.declared.get((entry.key, entry.reference))
        return declared.implementation if declared is not None else None

    def error(self, key: str, choice: Choice) -> FactoryError:
        if choice.culprit is None:
            names = sorted({e.name for found in self.table().values() for e in found})
            # a name that is there was found; what is missing is the implementation that was asked for
            has = "" if key in self.table() else f"; it has {', '.join(names) or 'nothing'}{nearest(key, names)}"
            return UnknownImplementation(f"{self.title}: {choice.problem}{has}", name=key)
        outcome = self.loader.outcomes.get(choice.culprit)
        error = LoadFailed(
            f"{self.title}: {choice.problem}", fix=fix_of(choice.problem), name=key, dist=choice.culprit.dist
        )
        error.__cause__ = outcome.error if outcome is not None else None
        return error

    def _published(self, entry: PartEntry, outcome: Outcome) -> None:
        self.change()
        if outcome.implementation is None:
            log.warning("%s %r: %s is %s: %s", self.title, entry.name, entry.label, outcome.state.value, outcome.why)

    # changes

    def change(self, **tables: Any) -> None:
        """Publish new tables; everything derived from the old ones is dropped."""
        with self.lock:
            self.publish(tables)

    def publish(self, tables: dict[str, Any]) -> None:
        """As `change`, for a caller that holds the lock."""
        for name, table in tables.items():
            setattr(self, name, table)
        self._table = None
        self.ready = {}
        self.generation += 1

    def declare(self, entry: PartEntry, implementation: type | None) -> None:
        place = (entry.key, entry.reference)
        with self.lock:
            before = self.declared.get(place)
            # the same class again; a lazy name never replaces the class it stands for
            if before is not None and (implementation is None or before.implementation is implementation):
                return
            declared = {**self.declared, place: Declared(entry, implementation)}
            self.publish({"declared": declared, "hidden": self.hidden - {place}})

    def select(self, key: str, selector: str | None) -> None:
        with self.lock:
            rest = {k: v for k, v in self.selected.items() if k != key}
            self.publish({"selected": rest if selector is None else {**rest, key: selector}})

    def discover(self, root: str, entries: Iterable[PartEntry]) -> tuple[tuple[PartEntry, ...], tuple[PartEntry, ...]]:
        """Take what is installed under a root; returns what is new and what is gone."""
        present = tuple(entries)
        with self.lock:
            before = self.discovered.get(root, ())
            new = tuple(e for e in present if e not in before or e in self.gone)
            gone = tuple(e for e in before if e not in present and e not in self.gone)
            if new or gone or root not in self.discovered:
                # what is gone stays listed: its class may be in use
                kept = tuple(e for e in before if e not in present)
                absent = (self.gone | set(gone)) - set(present)
                self.publish({"discovered": {**self.discovered, root: present + kept}, "gone": absent})
        return new, gone

    def forget_failures(self) -> None:
        """Forget failed loads and digests, so that both are tried again."""
        self.loader.forget(lambda _, outcome: outcome.implementation is not None)
        self._digests = {}
        self.change()


def _loaded(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.implementation is not None


# weak: a factory of a test, or of a module that was unloaded, must not be kept alive by the fork handler
_registries: weakref.WeakSet[Registry] = weakref.WeakSet()


def _renew_all() -> None:
    for registry in _registries:
        registry.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def variable(group: str, name: str = "") -> str:
    """The environment variable that selects an implementation, `APP_ENDPOINTS_CHAT`, or the name in use, `APP_ENDPOINTS`."""
    said = (f"{group}_{name}" if name else group).replace(".", "_")
    if said.isascii() and said.isidentifier():  # as most: nothing else is to be replaced
        return said.upper()
    return re.sub(r"\W", "_", said).upper()


def _said(name: str) -> str | None:
    """The value of a variable in the environment, else in the file .env."""
    return os.environ.get(name) or configured.current().variables.get(name)
