"""Selection: changing which implementation wins while the program runs, undoing it, and carrying it to another process.

Law: a selection is kept as text, not as a class, so that it means the same in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from bema.parts.entries import Origin, PartEntry, key_of, reference_of
from bema.parts.errors import LoadFailed, UnknownImplementation
from bema.parts.registry import Declared, Registry
from bema.parts.resolve import Candidate, broke, listed, near, select


class Change:
    """A change that can be undone, once: by `restore()`, or by leaving a `with`."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def restore(self) -> None:
        """Undo the change; a second call does nothing."""
        # taken away first: an undo that fails half-way must not be done twice
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Change:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def use(registry: Registry, name: Any, implementation: type | str | None) -> Change:
    """Select in code; nothing changes when what is asked for is not there or cannot be used."""
    key = key_of(name)
    before = registry.selected.get(key)
    registry.select(key, None if implementation is None else _selector(registry, key, implementation))
    return Change(lambda: registry.select(key, before))


def _selector(registry: Registry, key: str, implementation: type | str) -> str:
    candidates = registry.candidates(key)
    found = _find(registry, candidates, implementation)
    # only what names a distribution or a module: a bare class name could be a typing mistake
    # a program may choose first and discover later; who never answers is in the report
    if not found and isinstance(implementation, str) and ":" in implementation and not registry.discovered:
        return implementation
    one = _only(registry, key, candidates, found, implementation)
    if not one.usable:
        raise LoadFailed(f"{registry.title}: {broke(one)}", name=key, dist=one.entry.dist)
    # kept as text, not as a class: it must mean the same in another process
    for selector in (one.entry.id, one.entry.reference):
        if [c.entry for c in select(candidates, selector)] == [one.entry]:
            return selector
    return one.entry.id


def _find(registry: Registry, candidates: list[Candidate], implementation: type | str) -> list[Candidate]:
    if isinstance(implementation, str):
        return select(candidates, implementation)
    same = [c for c in candidates if registry.class_of(c.entry) is implementation]
    return same or [c for c in candidates if c.entry.reference == reference_of(implementation)]


def _only(
    registry: Registry, key: str, candidates: list[Candidate], found: list[Candidate], implementation: type | str
) -> Candidate:
    if len(found) == 1:
        return found[0]
    asked = implementation if isinstance(implementation, str) else reference_of(implementation)
    if found:
        raise UnknownImplementation(
            f"{registry.title}: {asked!r} is not one candidate for {key!r} but {listed(found)}", name=key
        )
    hint = near(asked, candidates)
    raise UnknownImplementation(
        f"{registry.title}: {asked!r} is not a candidate for {key!r}, which has {listed(candidates)}{hint}", name=key
    )


def withdraw(registry: Registry, key: str, implementation: type) -> None:
    """Take a declaration back as if it had not been made."""
    with registry.lock:
        kept = {
            place: d
            for place, d in registry.declared.items()
            if place[0] != key or d.implementation is not implementation
        }
        registry.publish({"declared": kept})


def unregister(registry: Registry, name: Any, implementation: type | str) -> Change:
    key = key_of(name)
    candidates = registry.candidates(key)
    entry = _only(registry, key, candidates, _find(registry, candidates, implementation), implementation).entry
    before = registry.selected.get(key)
    selected_it = before is not None and [c.entry for c in select(candidates, before)] == [entry]
    place = (key, entry.reference)
    registry.change(hidden=registry.hidden | {place})
    if selected_it:
        registry.select(key, None)

    def undo() -> None:
        registry.change(hidden=registry.hidden - {place})
        if selected_it:
            registry.select(key, before)

    return Change(undo)


def snapshot(registry: Registry) -> dict[str, Any]:
    declared = [d.entry for d in registry.declared.values() if d.entry.origin is Origin.CODE]
    return {
        "group": registry.group,
        "roots": list(registry.discovered),
        "declared": [[e.name, e.reference, e.priority] for e in declared if importable(e.reference)],
        "hidden": sorted(registry.hidden),
        "selected": dict(registry.selected),
    }


def importable(reference: str) -> bool:
    """Whether another process finds it under that reference."""
    return "<locals>" not in reference and not reference.startswith("__main__:")


def restore(registry: Registry, kept: Mapping[str, Any]) -> None:
    if kept["group"] != registry.group:
        raise UnknownImplementation(
            f"{registry.title} is of group {registry.group!r}; the snapshot is of {kept['group']!r}"
        )
    with registry.lock:
        declared = dict(registry.declared)
        for name, reference, priority in kept["declared"]:
            entry = PartEntry(
                group=registry.group, name=name, reference=reference, origin=Origin.CODE, priority=priority
            )
            declared.setdefault((entry.key, reference), Declared(entry))
        hidden = frozenset((key, reference) for key, reference in kept["hidden"])
        registry.publish({"declared": declared, "hidden": hidden, "selected": dict(kept["selected"])})
