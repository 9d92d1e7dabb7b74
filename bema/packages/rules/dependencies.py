"""Dependencies, and the functions that bindings name in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from bema.packages.context import Hit, RuleContext, repeated
from bema.packages.opackage import OPackage

_DOT = re.compile(r"\.")
_MOST_NAMED = 5
_LONGEST_NAME = 1024  # of a package, as far as spellings of its functions are looked for


def empty_dependency(context: RuleContext) -> Iterator[Hit]:
    for index, name in enumerate(context.package.dependencies):
        if not name:
            yield Hit(("dependencies", index), "Dependency name cannot be empty")


def duplicate_dependency(context: RuleContext) -> Iterator[Hit]:
    for index, name in repeated(context.package.dependencies):
        yield Hit(("dependencies", index), f"dependency {name} is listed twice", "List it once.")


def self_dependency(context: RuleContext) -> Iterator[Hit]:
    """Upstream possible by an update, never by a creation."""
    for index, name in enumerate(context.package.dependencies):
        if name and name == context.package.name:
            yield Hit(("dependencies", index), f"{name} depends on itself", "Remove it.")


def missing_dependency(context: RuleContext) -> Iterator[Hit]:
    """The package manager looks for each by name when a package is created: one that is not stored refuses it whole."""
    for index, name in enumerate(context.package.dependencies):
        if name and name != context.package.name and not _at_hand(context, name):
            fix = f"Give its document too, or say that it is stored already: --known {name}."
            others = [needing for needing in context.dependents.get(name, ()) if needing != context.package.name]
            also = f" {_some(others)} on it too." if others else ""
            yield Hit(("dependencies", index), f"Dependency not found: {name}", fix + also)


def _some(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMED
    shown = ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"{shown} {'depends' if len(names) == 1 else 'depend'}"


def dependency_cycle(context: RuleContext) -> Iterator[Hit]:
    """Nothing upstream looks; but none of the packages in a circle can be created first."""
    name = context.package.name
    way = cycle_through(name, {**context.packages, name: context.package})
    if way is not None and len(way) > 2:
        index = context.package.dependencies.index(way[1])
        yield Hit(("dependencies", index), f"dependencies go in a circle: {' -> '.join(way)}", "Break it somewhere.")


def missing_function(context: RuleContext) -> Iterator[Hit]:
    """A binding names a function of its package, or of a declared dependency: by its key, or as `package.key`."""
    reachable = _reachable(context)
    unseen = {name for name in context.package.dependencies if name not in context.packages}
    owners: dict[str, str] | None = None
    for c, cls in enumerate(context.package.classes):
        for b, binding in enumerate(cls.function_bindings):
            key = binding.function_key
            if not key or key in reachable or _of_unseen(key, unseen):
                continue
            owners = _owners(context) if owners is None else owners
            message = f"Class {cls.key} references non-existent function: {key}"
            yield Hit(("classes", c, "function_bindings", b, "function_key"), message, _advice(owners.get(key)))


def _reachable(context: RuleContext) -> set[str]:
    found = set(context.functions)
    for name in context.package.dependencies:
        package = context.packages.get(name)
        for function in package.functions if package else ():
            found |= {function.key, f"{name}.{function.key}"}
    return found


def _at_hand(context: RuleContext, name: str) -> bool:
    return name in context.packages or name in context.known


def _of_unseen(key: str, unseen: set[str]) -> bool:
    """Whether the key is spelled as one of a declared dependency whose document is not here to be asked."""
    return any(key[: dot.start()] in unseen for dot in _DOT.finditer(key[:_LONGEST_NAME])) if unseen else False


def _owners(context: RuleContext) -> dict[str, str]:
    """The functions of all other packages, by both their spellings."""
    found: dict[str, str] = {}
    for name, package in context.packages.items():
        for function in package.functions if name != context.package.name else ():
            found.setdefault(function.key, name)
            found.setdefault(f"{name}.{function.key}", name)
    return found


def _advice(owner: str | None) -> str:
    return f"It is a function of {owner}: add {owner} to dependencies." if owner else "Add it to functions."


# what depends on what: cycles, and who is left when a package goes. Pure functions over names


def cycle_through(name: str, packages: Mapping[str, OPackage]) -> list[str] | None:
    """The shortest way from a package back to itself, as names; None where there is none. A diamond is no cycle."""
    reached: dict[str, str] = {}  # package -> the one that led there
    wave = [name]
    # wave by wave, so that the first way back is the shortest
    while wave:
        following: list[str] = []
        for here in wave:
            for there in packages[here].dependencies if here in packages else ():
                if there == name:
                    return _way_back(name, here, reached)
                if there not in reached:
                    reached[there] = here
                    following.append(there)
        wave = following
    return None


def _way_back(name: str, last: str, reached: Mapping[str, str]) -> list[str]:
    way = [name]
    while last != name:
        way.append(last)
        last = reached[last]
    return [name, *reversed(way)]


def dependents(packages: Iterable[OPackage]) -> dict[str, list[str]]:
    """By package: those that declare a dependency on it. While there are any, it must be there, and not be deleted."""
    found: dict[str, set[str]] = {}
    for package in packages:
        for name in package.dependencies:
            if name != package.name:
                found.setdefault(name, set()).add(package.name)
    return {name: sorted(needed_by) for name, needed_by in found.items()}
