"""JSON Schema of the document, from the model's own types, for editors.

It takes what the model takes: in YAML a bare number or word is text where text is wanted, and unknown fields are let
through (lint names them).
"""

from __future__ import annotations

from typing import Any

import msgspec

from bema.packages.opackage import OPackage

_BARE = ("string", "number", "boolean", "null")


def schema() -> dict[str, Any]:
    found = msgspec.json.schema(OPackage)
    definitions = found["$defs"]
    for definition in definitions.values():
        required = definition.get("required", ())
        for name, described in definition.get("properties", {}).items():
            _relax(described)
            kind = definitions.get(described.get("$ref", "").rpartition("/")[2], {}).get("type")
            if kind == "object" and name not in required:  # `metadata:` with nothing behind it is null to an editor
                described["anyOf"] = [{"$ref": described.pop("$ref")}, {"type": "null"}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "OPackage",
        "description": "A package document: classes, the functions they bind, and where they are deployed.",
        **definitions.pop("OPackage"),
        "$defs": definitions,
    }


def _relax(described: Any) -> None:
    """Text may be written bare, and a collection left blank, as the YAML reader takes them."""
    if not isinstance(described, dict):
        return
    if described.get("type") == "string" and "enum" not in described and "format" not in described:
        described["type"] = list(_BARE)
    for nested in described.get("anyOf", ()):
        _relax(nested)
    for key in ("items", "additionalProperties"):
        _relax(described.get(key))
    if described.get("type") in ("array", "object") and "default" in described:
        described["type"] = [described["type"], "null"]
