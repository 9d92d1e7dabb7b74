"""Policy: what the operator wants of plugins, read from a mapping and the environment. Pure.

The table is `[plugins]` of bema.toml, or `[tool.bema.plugins]` of pyproject.toml:

    mode = "all"                        # all | allow | locked
    allow = ["acme-codecs==1.2"]        # distribution[==version][@sha256:digest of its RECORD]
    deny = ["evil"]                     # beats allow
    override_builtin = ["acme-codecs"]  # a right of its own in the modes allow and locked
    disable = ["slow", "acme:json"]     # distribution, distribution:name or *:name
    lock = "bema-plugins.lock"
    on_conflict = "first"               # first | error
    on_failure = "fallback"             # fallback | raise
    factories = ["app.parts:CodecFactory"]   # what `bema plugins` shows beside bema's own
    [plugins.priority]
    "acme-codecs" = 10                  # distribution or distribution:name
    [plugins.use]
    "app.codecs" = "json"               # the name that holds where code gives none
    [plugins.select."app.codecs"]
    json = "acme-codecs:json"           # the implementation of a name

Law: a key nobody reads is an error, so that a typing mistake never loosens trust. The environment replaces a key
(`BEMA_PLUGINS_MODE`, lists separated by commas), except `deny` and `disable`, to which it adds. An empty variable says
nothing, as for every setting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from bema.core.errors import Invalid
from bema.core.naming import nearest
from bema.parts.entries import PartEntry, canonical, key_of

_PERMIT = r"([A-Za-z0-9][\w.-]*?)(?:==([^@\s]+))?(?:@sha256:([0-9a-f]{64}))?\Z"  # compiled when first needed
_LISTS = ("allow", "deny", "override_builtin", "disable", "factories", "imports")
_PREFIX = "BEMA_PLUGINS_"
_ADDED = ("deny", "disable")
_CHOICES = {
    "mode": ("all", "allow", "locked"),
    "on_conflict": ("first", "error"),
    "on_failure": ("fallback", "raise"),
}
_TABLES = ("priority", "select", "use")


class Permit(msgspec.Struct, frozen=True):
    """One item of the allow list."""

    dist: str
    version: str = ""
    digest: str = ""


class Locked(msgspec.Struct, frozen=True, order=True):
    """One row of the lock file."""

    group: str
    name: str
    value: str
    dist: str
    version: str
    record: str


class PluginPolicy(msgspec.Struct, frozen=True, kw_only=True):
    mode: Literal["all", "allow", "locked"] = "all"
    allow: tuple[Permit, ...] = ()
    deny: frozenset[str] = frozenset()
    override_builtin: frozenset[str] = frozenset()
    disable: frozenset[str] = frozenset()
    priority: dict[str, int] = {}
    select: dict[str, dict[str, str]] = {}
    use: dict[str, str] = {}
    on_conflict: Literal["first", "error"] = "first"
    on_failure: Literal["fallback", "raise"] = "fallback"
    lock: str = "bema-plugins.lock"
    locked: frozenset[Locked] = frozenset()
    factories: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    variables: dict[str, str] = {}  # of the file .env: what holds where the environment itself says nothing

    def priority_of(self, entry: PartEntry) -> int:
        if not entry.is_plugin or not self.priority:
            return entry.priority
        # the nearest word of the operator, then what the plugin says of itself: a plugin never outbids the
        # operator
        return self.priority.get(f"{entry.dist}:{entry.key}", self.priority.get(entry.dist, entry.priority))

    def disables(self, entry: PartEntry) -> bool:
        if not self.disable:  # as almost everywhere, and every candidate is asked about
            return False
        names = {entry.dist, f"{entry.dist}:{entry.key}", f"*:{entry.key}"}
        return bool(entry.dist) and not self.disable.isdisjoint(names)


def read_policy(table: Mapping[str, Any], env: Mapping[str, str] | None = None) -> PluginPolicy:
    """The policy a table and an environment ask for; `Invalid` with the offending key otherwise."""
    known = (*_LISTS, *_CHOICES, *_TABLES, "lock")
    # a list that was meant to forbid and is not read would permit
    for key in table:
        if key not in known:
            raise Invalid(f"plugins.{key} is not a setting{nearest(key, known)}", code="bad_setting")
    values = _with_environment(dict(table), env or {})
    for key, choices in _CHOICES.items():
        if values.get(key, choices[0]) not in choices:
            raise Invalid(f"plugins.{key} = {values[key]!r} is none of {', '.join(choices)}", code="bad_setting")
    lists = {key: _strings(key, values.pop(key, [])) for key in _LISTS}
    return PluginPolicy(
        **{key: values[key] for key in (*_CHOICES, "lock") if key in values},
        allow=tuple(map(_permit, lists["allow"])),
        deny=frozenset(map(canonical, lists["deny"])),
        override_builtin=frozenset(map(canonical, lists["override_builtin"])),
        disable=frozenset(map(_pattern, lists["disable"])),
        priority=_priorities(values.get("priority", {})),
        select=_selections(values.get("select", {})),
        use=_names(values.get("use", {})),
        factories=tuple(lists["factories"]),
        imports=tuple(lists["imports"]),
    )


def _with_environment(values: dict[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    known = {f"{_PREFIX}{key.upper()}": key for key in (*_LISTS, *_CHOICES, "lock")}
    for variable, text in env.items():
        if not variable.startswith(_PREFIX) or not text:
            continue
        if variable not in known:
            raise Invalid(f"{variable} is not a setting{nearest(variable, known)}", code="bad_setting")
        key = known[variable]
        items = [item.strip() for item in text.split(",") if item.strip()]
        if key in _ADDED:
            values[key] = [*values.get(key, []), *items]
        else:
            values[key] = items if key in _LISTS else text
    return values


def _strings(key: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise Invalid(f"plugins.{key} = {value!r} is not a list of strings", code="bad_setting")
    return list(value)


def _permit(text: str) -> Permit:
    match = re.match(_PERMIT, text.strip())
    if match is None:
        raise Invalid(f"plugins.allow: {text!r} is not distribution[==version][@sha256:digest]", code="bad_setting")
    dist, version, digest = match.groups()
    return Permit(canonical(dist), version or "", digest or "")


def _pattern(text: str) -> str:
    dist, colon, name = text.partition(":")
    return canonical(dist) + (f":{key_of(name or '?')}" if colon else "")


def _priorities(table: Any) -> dict[str, int]:
    if not isinstance(table, Mapping) or any(type(value) is not int for value in table.values()):
        raise Invalid("plugins.priority is not a table of whole numbers", code="bad_setting")
    return {_pattern(dist): value for dist, value in table.items()}


def _selections(table: Any) -> dict[str, dict[str, str]]:
    try:
        chosen = msgspec.convert(table, dict[str, dict[str, str]])
    except msgspec.ValidationError as error:
        raise Invalid(f"plugins.select: {error}", code="bad_setting") from error
    return {group: {key_of(name): value for name, value in names.items()} for group, names in chosen.items()}


def _names(table: Any) -> dict[str, str]:
    try:
        return msgspec.convert(table, dict[str, str])
    except msgspec.ValidationError as error:
        raise Invalid(f"plugins.use: {error}", code="bad_setting") from error


def distrust(entry: PartEntry, policy: PluginPolicy, digest: Callable[[str], str]) -> str:
    """Why the code of an installed entry may not be loaded; empty when it may. Deny beats allow.

    `digest` gives the SHA-256 of a distribution's RECORD and is asked only where a rule depends on it.
    """
    # in every mode: the deny list could not reach it
    if not entry.dist:
        return f"nobody knows whose it is: {entry.path} has no METADATA that names it"
    if entry.dist in policy.deny:
        return f"{entry.dist} is on the deny list"
    if policy.mode == "allow":
        return _unlisted(entry, policy, digest)
    if policy.mode == "locked":
        return _unlocked(entry, policy, digest)
    return ""


def _unlisted(entry: PartEntry, policy: PluginPolicy, digest: Callable[[str], str]) -> str:
    permits = [permit for permit in policy.allow if permit.dist == entry.dist]
    if not permits:
        return f"{entry.dist} is not on the allow list"
    for permit in permits:
        right_version = permit.version in ("", entry.version)
        if right_version and (not permit.digest or permit.digest == digest(entry.path)):
            return ""
    return f"{entry.dist} {entry.version} is not the version or content that the allow list names"


def _unlocked(entry: PartEntry, policy: PluginPolicy, digest: Callable[[str], str]) -> str:
    # name by name: a locked distribution does not gain entry points unnoticed
    rows = [row for row in policy.locked if row.dist == entry.dist and row.name == entry.name]
    # a name that was locked in one group is not agreed to in another
    rows = [row for row in rows if row.group == entry.group]
    if not rows:
        return f"{entry.dist} is not in the lock file for {entry.name!r}"
    actual = Locked(entry.group, entry.name, entry.reference, entry.dist, entry.version, digest(entry.path))
    # an empty digest equals an empty digest, and proves nothing
    if actual in rows and actual.record:
        return ""
    differs = next(
        f for f in ("value", "version", "record") if getattr(rows[0], f) != getattr(actual, f) or not actual.record
    )
    return f"{entry.dist} {entry.version} differs from the lock file: {differs}"


def may_override(entry: PartEntry, policy: PluginPolicy) -> bool:
    """Whether a plugin may stand in for a builtin of the same name."""
    return policy.mode == "all" or entry.dist in policy.override_builtin
