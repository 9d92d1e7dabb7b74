"""What a deploy would change of what is there: said before it is done, and decided the same way when it is.

Law: pure. A version is another one where a process of it would be another: other files, variables or settings that a process is
started with.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bema.deploy.model.deployment import Rollout, Version
from bema.deploy.model.function import FunctionSettings


class ChangeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy would change. `version` is the label of the version it would make, empty where it makes none; of variables
    only names are told."""

    name: str
    version: str = ""
    code: bool = False
    env_added: tuple[str, ...] = ()
    env_changed: tuple[str, ...] = ()
    env_removed: tuple[str, ...] = ()
    dependencies_added: tuple[str, ...] = ()
    dependencies_removed: tuple[str, ...] = ()
    settings: dict[str, tuple[Any, Any]] = {}  # by name: what it is, and what it would be


def same_process(one: Version, other: Version) -> bool:
    """Whether a process of either would be the same."""
    return _process(one) == _process(other)


def _process(version: Version) -> tuple[Any, ...]:
    return version.digest, version.entry, version.env, version.launcher, version.settings


def change_of(
    name: str, old: Rollout | None, new: Version, in_place: FunctionSettings, *, failed: bool = False
) -> ChangeInfo:
    """What changes when `new` is deployed; with `failed`, what is there is replaced though it were the same."""
    if old is None:
        said = in_place.over(new.settings)
        return ChangeInfo(
            name=name,
            version=new.label,
            code=True,
            env_added=tuple(sorted(new.env)),
            dependencies_added=new.dependencies,
            settings=_changed(FunctionSettings(), said),
        )
    was = old.wanted
    before, after = set(was.dependencies), set(new.dependencies)
    settings = old.deployment.settings
    return ChangeInfo(
        name=name,
        version="" if same_process(was, new) and not failed else f"v{old.version.number + 1}",
        code=was.digest != new.digest,
        env_added=tuple(sorted(set(new.env) - set(was.env))),
        env_changed=tuple(sorted(key for key in new.env if key in was.env and new.env[key] != was.env[key])),
        env_removed=tuple(sorted(set(was.env) - set(new.env))),
        dependencies_added=tuple(each for each in new.dependencies if each not in before),
        dependencies_removed=tuple(each for each in was.dependencies if each not in after),
        settings=_changed(settings.over(was.settings), in_place.over(settings).over(new.settings)),
    )


def _changed(before: FunctionSettings, after: FunctionSettings) -> dict[str, tuple[Any, Any]]:
    names = before.__struct_fields__
    return {
        name: (getattr(before, name), getattr(after, name))
        for name in names
        if getattr(before, name) != getattr(after, name)
    }
