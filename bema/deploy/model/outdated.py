"""Which packages of a lock have newer versions: two locks of one script compared, the one in use and one made now.

What a script bounds (`pandas<3`) bounds the newer one as well: what is told is what a new lock would change.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict

import msgspec

from bema.core.errors import Failed
from bema.deploy.model.deployment import DeploymentInfo


class OutdatedPackage(msgspec.Struct, frozen=True):
    """`locked` and `newest` are versions; several where markers choose one of them, none where it comes or goes."""

    name: str
    locked: tuple[str, ...]
    newest: tuple[str, ...]


class UpgradeInfo(DeploymentInfo, frozen=True, kw_only=True):
    """A deployment after an upgrade was asked for: `packages` are those that its next version has others of."""

    packages: tuple[OutdatedPackage, ...] = ()


def outdated(lock: str, newest: str) -> list[OutdatedPackage]:
    """What differs, by name. `Failed` (build_failed) for a lock that cannot be read."""
    if lock == newest:
        return []
    before, after = _versions(lock), _versions(newest)
    return [
        OutdatedPackage(name, before.get(name, ()), after.get(name, ()))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _versions(lock: str) -> dict[str, tuple[str, ...]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for package in tomllib.loads(lock).get("package", ()):
            # what is local may have no version, and is never of an index
            if "version" in package:
                found[package["name"]].append(package["version"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Failed(f"the lock cannot be read: {error}", code="build_failed") from error
    return {name: tuple(sorted(versions)) for name, versions in found.items()}
