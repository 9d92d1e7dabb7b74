"""PartEntry: one named implementation, from code or from an entry point, as data.

Law: nothing here depends on the order of installation, the order of a file system, or time.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec

# compiled when first needed: every start imports this, and plain references need none
_REFERENCE = r"([A-Za-z_][\w.]*)\s*(?::\s*([A-Za-z_][\w.]*))?\s*(?:\[(.*)\])?\s*\Z"


class Origin(enum.StrEnum):
    """Who named it."""

    CODE = "code"  # a decorator or `register_lazy`
    GROUP = "group"  # an entry point in the bare group: a builtin of the form before decorators
    PLUGIN = "plugin"  # an entry point in `<root>.plugins`


class PartState(enum.StrEnum):
    """How far an entry came. Only the first three can be chosen."""

    DECLARED = "declared"
    DISCOVERED = "discovered"
    LOADED = "loaded"
    FAILED = "failed"  # its import raised
    INVALID = "invalid"  # its reference is not `module:Class`
    WRONG_TYPE = "wrong_type"  # it loaded, and is not what the factory makes
    INCOMPATIBLE = "incompatible"  # it asks for another version of the interface
    DISABLED = "disabled"
    NOT_ALLOWED = "not_allowed"
    SHADOWED = "shadowed"  # another copy of its distribution comes first on the path
    GONE = "gone"  # uninstalled since it was discovered


USABLE = frozenset({PartState.DECLARED, PartState.DISCOVERED, PartState.LOADED})


def key_of(name: Any) -> str:
    """How names are compared: `Chat`, `CHAT` and enum members of those values are one name; so are `a-b` and `a_b`."""
    text = name.value if isinstance(name, enum.Enum) else name
    if not isinstance(text, str) or not text:
        raise TypeError(f"an implementation's name is a string or an enum of strings, not {name!r}")
    return _key(text)


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def canonical(dist: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    name = dist.lower().replace("_", "-").replace(".", "-")
    while "--" in name:
        name = name.replace("--", "-")
    return name


class PartEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate for one name. `reference` is `module:Class` as written, without extras."""

    group: str
    name: str
    reference: str
    origin: Origin
    dist: str = ""
    version: str = ""
    path: str = ""  # the metadata folder it was read from
    extras: tuple[str, ...] = ()
    priority: int = 0  # as declared, by the decorator or the manifest; the policy may say otherwise of a plugin
    description: str = ""
    metadata: str = ""  # JSON, so that an entry stays a key of tables
    requires: str = ""  # the versions of the interface it asks for
    invalid: str = ""
    shadowed_by: str = ""

    @property
    def key(self) -> str:
        return _key(self.name)

    @property
    def is_plugin(self) -> bool:
        return self.origin is Origin.PLUGIN

    @property
    def id(self) -> str:
        """What selects it: `dist:name`, or the reference where no distribution is known."""
        return f"{self.dist}:{self.name}" if self.dist else self.reference

    @property
    def class_name(self) -> str:
        return self.reference.rpartition(":")[2].rpartition(".")[2]

    @property
    def label(self) -> str:
        """How messages name it."""
        source = f"{self.dist} {self.version}".strip() or "builtin"
        return f"{self.reference} ({source})"


def read_reference(value: str) -> tuple[str, tuple[str, ...], str]:
    """`module:Class [extra, ...]` as (reference, extras, problem); the problem is empty when it is well formed."""
    if all(map(str.isidentifier, value.replace(":", ".", 1).split("."))):
        return value, (), ""
    match = re.match(_REFERENCE, value.strip())
    if match is None or ".." in value:
        return value.strip(), (), f"{value!r} is not `module:Class`"
    module, attribute, extras = match.groups()
    reference = f"{module}:{attribute}" if attribute else module
    return reference, tuple(e.strip() for e in (extras or "").split(",") if e.strip()), ""


def reference_of(implementation: type) -> str:
    return f"{implementation.__module__}:{implementation.__qualname__}"


def matches(entry: PartEntry, selector: str) -> bool:
    """Whether a selector (`dist:name`, `module:Class`, a class name) means this entry."""
    if selector in (entry.reference, entry.class_name):
        return True
    dist, colon, name = selector.rpartition(":")
    return bool(colon and entry.dist) and canonical(dist) == entry.dist and key_of(name or "?") == entry.key
