"""Names, addresses and ids, and the rules that they keep.

Law: a name that breaks its rule is refused where it is declared, in a sentence that shows it.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable

import msgspec

from bema.core.errors import BadDeclaration, Invalid

# `\Z`, not `$`: `$` also matches before a newline at the end
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}\Z")
_DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"  # compiled when first needed, which most starts never do

_BASE32 = "0123456789abcdefghijklmnopqrstuv"


def shown(value: object) -> str:
    """A value as a sentence shows it: what somebody sent may be as long as a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def check_name(value: str, what: str) -> str:
    """Return a namespace or component name; `BadDeclaration` (code `bad_name`) where it breaks the rule."""
    if not isinstance(value, str) or not NAME.match(value):
        raise BadDeclaration(
            f"{what} {shown(value)} is not a name: [A-Za-z][A-Za-z0-9_-]*, at most 63 characters", code="bad_name"
        )
    return value


def check_endpoint(value: str) -> str:
    """Return an endpoint name; `BadDeclaration` (code `bad_name`) unless it is an ASCII identifier of at most 63 characters."""
    if not isinstance(value, str) or not value.isidentifier() or len(value) > 63 or not value.isascii():
        raise BadDeclaration(
            f"endpoint name {shown(value)} is not a Python identifier of at most 63 characters", code="bad_name"
        )
    return value


def check_deployment(value: str) -> str:
    """Return a deployment's name; `Invalid` (code `bad_name`) unless it is a DNS label (RFC 1123)."""
    if not isinstance(value, str) or not re.match(_DNS_LABEL, value):
        raise Invalid(
            f"deployment name {shown(value)} is not a DNS label: a-z, 0-9 and '-', at most 63 characters",
            code="bad_name",
        )
    return value


class Address(msgspec.Struct, frozen=True):
    """The address of an endpoint: `namespace.component.endpoint[@instance]`."""

    namespace: str
    component: str
    endpoint: str
    instance: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; `Invalid` (code `bad_name`) unless it is three names and an optional instance id."""
        # `dyn://` is how Dynamo writes the same address
        path, at, instance = text.removeprefix("dyn://").partition("@")
        parts = path.split(".")
        if len(parts) != 3:
            raise Invalid(f"address {text!r} is not namespace.component.endpoint", code="bad_name")
        namespace, component, endpoint = parts
        try:
            check_name(namespace, "namespace")
            check_name(component, "component")
            check_endpoint(endpoint)
        except BadDeclaration as error:
            raise Invalid(f"address {text!r}: {error}", code="bad_name") from error
        return cls(namespace, component, endpoint, read_instance_id(instance) if at else None)

    @property
    def route(self) -> str:
        """The address without its instance, as request frames name it."""
        return f"{self.namespace}.{self.component}.{self.endpoint}"

    def __str__(self) -> str:
        return self.route if self.instance is None else f"{self.route}@{show_instance_id(self.instance)}"


def component_of(text: str) -> tuple[str, str] | None:
    """Split `namespace.component` into its two names; None for any other form."""
    namespace, dot, component = text.removeprefix("dyn://").partition(".")
    return (namespace, component) if dot and NAME.match(namespace) and NAME.match(component) else None


def new_instance_id() -> int:
    """A random 63-bit id, which is never given twice."""
    # below 2**63 for readers with signed integers; the highest bit is always set, so that all are of the same length
    # the kernel's own random bytes, as `secrets` gives them: that takes 2 ms to import
    return int.from_bytes(os.urandom(8)) >> 2 | 1 << 62


def show_instance_id(value: int) -> str:
    """An instance id as 13 characters of base32 (RFC 4648 extended hex alphabet, lower case)."""
    return "".join(_BASE32[value >> shift & 31] for shift in range(60, -1, -5))


def read_instance_id(text: str) -> int:
    """The id that `show_instance_id` wrote, or a plain decimal number; `Invalid` (code `bad_name`) for anything else."""
    if is_instance_label(text):
        return int(text, 32)
    if text.isdecimal():
        return int(text)
    raise Invalid(f"{text!r} is not an instance id", code="bad_name")


def is_instance_label(text: str) -> bool:
    """Whether it is an id as `show_instance_id` writes them."""
    return len(text) == 13 and set(text) <= set(_BASE32)


def new_call_id(now: int) -> str:
    """An id of a durable call made at the instant `now`: 21 characters of base32, whose order is that of creation."""
    return first_call_id(now) + "".join(_BASE32[byte & 31] for byte in os.urandom(10))


def first_call_id(now: int) -> str:
    """What sorts before every id of a call that is made at that instant, in microseconds UTC, or later."""
    return "".join(_BASE32[max(now, 0) >> shift & 31] for shift in range(50, -1, -5))


def is_call_id(text: str) -> bool:
    """Whether it is an id as `new_call_id` makes them: nothing else becomes a part of a key."""
    return len(text) == 21 and set(text) <= set(_BASE32)


def is_uuid(text: str) -> bool:
    """Whether it is a UUID as we write them, in lower case: the id of a deployment."""
    return re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", text) is not None


def nearest(wrong: str, right: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: `; did you mean 'x'?` with the nearest right one, or an empty text."""
    # every start imports this room, and only a mistake needs difflib
    close = importlib.import_module("difflib").get_close_matches(wrong, list(right), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
