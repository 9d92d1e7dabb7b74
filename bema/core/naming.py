"""Names, addresses and ids, and the rules they keep. Refused where they are declared, in a sentence with the offender."""

from __future__ import annotations

import importlib
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from bema.core.errors import BadDeclaration, Invalid

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}\Z")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
INSTANCE = re.compile(r"[0-9a-v]{13}\Z")

_BASE32 = "0123456789abcdefghijklmnopqrstuv"


def check_name(value: str, what: str) -> str:
    """A namespace or component name, or `BadDeclaration`."""
    if not isinstance(value, str) or not NAME.match(value):
        raise BadDeclaration(
            f"{what} {value!r} is not a name: [A-Za-z][A-Za-z0-9_-]*, at most 63 characters", code="bad_name"
        )
    return value


def check_endpoint(value: str) -> str:
    """An endpoint name (a Python identifier of at most 63 characters), or `BadDeclaration`."""
    if not isinstance(value, str) or not value.isidentifier() or len(value) > 63 or not value.isascii():
        raise BadDeclaration(
            f"endpoint name {value!r} is not a Python identifier of at most 63 characters", code="bad_name"
        )
    return value


def check_deployment(value: str) -> str:
    """A deployment's name: a DNS label (RFC 1123), or `Invalid`."""
    if not isinstance(value, str) or not DNS_LABEL.match(value):
        raise Invalid(
            f"deployment name {value!r} is not a DNS label: a-z, 0-9 and '-', at most 63 characters", code="bad_name"
        )
    return value


class Address(NamedTuple):
    """`namespace.component.endpoint[@instance]`: where an endpoint is found."""

    namespace: str
    component: str
    endpoint: str
    instance: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; `Invalid` unless it has exactly three parts and an optional instance."""
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
        """What a request frame names: the address without its instance."""
        return f"{self.namespace}.{self.component}.{self.endpoint}"

    def __str__(self) -> str:
        return self.route if self.instance is None else f"{self.route}@{show_instance_id(self.instance)}"


def component_of(text: str) -> tuple[str, str] | None:
    """The namespace and component of `namespace.component`; None for what is not of that form."""
    namespace, dot, component = text.removeprefix("dyn://").partition(".")
    return (namespace, component) if dot and NAME.match(namespace) and NAME.match(component) else None


def new_instance_id() -> int:
    """A fresh 63-bit id; ids are never reused."""
    return secrets.randbits(62) | 1 << 62


def show_instance_id(value: int) -> str:
    """An instance id as 13 characters of base32 (RFC 4648 extended hex alphabet, lower case)."""
    return "".join(_BASE32[value >> shift & 31] for shift in range(60, -1, -5))


def read_instance_id(text: str) -> int:
    """The id that `show_instance_id` wrote, or a plain decimal; `Invalid` otherwise."""
    if INSTANCE.match(text):
        return int(text, 32)
    if text.isdecimal():
        return int(text)
    raise Invalid(f"{text!r} is not an instance id", code="bad_name")


def nearest(wrong: str, right: Iterable[str]) -> str:
    """What was perhaps meant, as the end of a sentence about a name that is not there: `; did you mean ...?`, or nothing."""
    # every start imports this room, and only a mistake needs difflib
    close = importlib.import_module("difflib").get_close_matches(wrong, list(right), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
