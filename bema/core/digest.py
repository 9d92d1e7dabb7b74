"""Digest: the SHA-256 of all that a service says of itself, by which a caller knows whether it has its description.

Laws: equal services give equal digests in every process. Every record holds one, so that every start makes one: it is made of
texts of the types, without their schemas.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from bema.core import type_text
from bema.core.spec import EndpointSpec, ServiceSpec

_FORM: Final = "bema description 1"


def digest_of(spec: ServiceSpec) -> str:
    """The SHA-256, in hex, of names, options, texts and types, down to the fields of the models."""
    said = [_FORM, spec.address, spec.version, spec.doc, f"{spec.slots} {spec.queue}"]
    for endpoint in spec.endpoints:
        names = [(p.name, p.required, None if p.required else type_text.value(p.default)) for p in endpoint.parameters]
        raises = [kind.__qualname__ for kind in endpoint.facts.get("raises", ())]
        own = (endpoint.name, endpoint.shape.value, endpoint.idempotent, endpoint.doc, endpoint.incoming)
        # only where it is said, so that the digests of all other services stay what they were
        said.append(repr((own, names, raises, *(name for name in ("resumable", "durable") if getattr(endpoint, name)))))
    said.append(type_text.whole(kind for endpoint in spec.endpoints for kind in types_of(endpoint)))
    return hashlib.sha256("\n".join(said).encode("utf-8", "backslashreplace")).hexdigest()


def types_of(endpoint: EndpointSpec) -> list[Any]:
    """The types of an endpoint, in this order: parameters, items that go in, answers."""
    incoming = [endpoint.facts.get("requests", Any)] if endpoint.shape.streams_in else []
    return [*(parameter.type for parameter in endpoint.parameters), *incoming, endpoint.returns]
