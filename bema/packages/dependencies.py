"""What depends on what: cycles, and who is left when a package goes. Pure functions over names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bema.packages.opackage import OPackage


def cycle_through(name: str, packages: Mapping[str, OPackage]) -> list[str] | None:
    """The shortest way from a package back to itself, as names; None where there is none. A diamond is no cycle."""
    reached: dict[str, str] = {}  # package -> the one that led there
    wave = [name]
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


def dependents(name: str, packages: Iterable[OPackage]) -> list[str]:
    """The packages that declare a dependency on this one: while there are any, it must not be deleted."""
    return sorted(package.name for package in packages if package.name != name and name in package.dependencies)
