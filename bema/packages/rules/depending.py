"""Dependencies, and the functions that bindings name in them."""

from __future__ import annotations

from collections.abc import Iterator

from bema.packages.context import Context, Hit
from bema.packages.dependencies import cycle_through


def empty_dependency(context: Context) -> Iterator[Hit]:
    for index, name in enumerate(context.package.dependencies):
        if not name:
            yield Hit(("dependencies", index), "Dependency name cannot be empty")


def duplicate_dependency(context: Context) -> Iterator[Hit]:
    names = context.package.dependencies
    for index, name in enumerate(names):
        if name and name in names[:index]:
            yield Hit(("dependencies", index), f"dependency {name} is listed twice", "List it once.")


def self_dependency(context: Context) -> Iterator[Hit]:
    for index, name in enumerate(context.package.dependencies):
        if name and name == context.package.name:
            yield Hit(("dependencies", index), f"{name} depends on itself", "Remove it.")


def missing_dependency(context: Context) -> Iterator[Hit]:
    for index, name in enumerate(context.package.dependencies):
        if name and name != context.package.name and not _at_hand(context, name):
            fix = f"Give its document too, or say that it is stored already: --known {name}."
            yield Hit(("dependencies", index), f"Dependency not found: {name}", fix)


def dependency_cycle(context: Context) -> Iterator[Hit]:
    name = context.package.name
    way = cycle_through(name, {**context.packages, name: context.package})
    if way is not None and len(way) > 2:
        index = context.package.dependencies.index(way[1])
        yield Hit(("dependencies", index), f"dependencies go in a circle: {' -> '.join(way)}", "Break it somewhere.")


def missing_function(context: Context) -> Iterator[Hit]:
    """A binding names a function of its package, or of a declared dependency: by its key, or as `package.key`."""
    reachable = _reachable(context)
    unseen = [name for name in context.package.dependencies if name not in context.packages]
    for c, cls in enumerate(context.package.classes):
        for b, binding in enumerate(cls.function_bindings):
            key = binding.function_key
            if not key or key in reachable or any(_of_unseen(context, name, key) for name in unseen):
                continue
            message = f"Class {cls.key} references non-existent function: {key}"
            yield Hit(("classes", c, "function_bindings", b, "function_key"), message, _advice(context, key))


def _reachable(context: Context) -> set[str]:
    found = set(context.functions)
    for name in context.package.dependencies:
        package = context.packages.get(name)
        for function in package.functions if package else ():
            found |= {function.key, f"{name}.{function.key}"}
    return found


def _at_hand(context: Context, name: str) -> bool:
    return name in context.packages or name in context.known


def _of_unseen(context: Context, name: str, key: str) -> bool:
    """Whether the key is spelled as one of a stored dependency whose document is not here to be asked."""
    return key.startswith(f"{name}.") and (name in context.known or name in context.package.dependencies)


def _advice(context: Context, key: str) -> str:
    for name, package in context.packages.items():
        if name != context.package.name and any(key in (f.key, f"{name}.{f.key}") for f in package.functions):
            return f"It is a function of {name}: add {name} to dependencies."
    return "Add it to functions."
