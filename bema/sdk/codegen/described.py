"""From a description back to a spec, to generate clients of a running service: types are made of the schemas.

Law: a type that a schema does not tell is `Any`. The callee fills a default that the schema does not tell, and checks
values beyond their type. A model is `Any` where it holds itself.
"""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import keyword
import uuid
from collections.abc import Iterator
from typing import Any, Final, Literal, Union

import msgspec

from bema.core.describe import Description, EndpointDescription, ParameterDescription
from bema.core.schemas import Schema
from bema.core.spec import EndpointSpec, Parameter, ServiceSpec

_REF: Final = "#/$defs/"
_PLAIN: Final[dict[str, Any]] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}
_FORMATS: Final[dict[str, Any]] = {
    "date-time": dt.datetime,
    "date": dt.date,
    "time": dt.time,
    "partial-time": dt.time,
    "duration": dt.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}


def spec_from(description: Description) -> ServiceSpec:
    """The spec of a service that is known by its description alone."""
    types = SchemaTypes(description.definitions)
    return ServiceSpec(
        description.name,
        description.namespace,
        description.doc,
        tuple(_endpoint(endpoint, types) for endpoint in description.endpoints),
        version=description.version,
    )


def _endpoint(said: EndpointDescription, types: SchemaTypes) -> EndpointSpec:
    properties = said.request.get("properties", {})
    return EndpointSpec(
        said.name,
        said.shape,
        tuple(_parameter(each, types.of(properties.get(each.name, {}))) for each in said.parameters or ()),
        types.of(said.response),
        said.doc,
        incoming=said.incoming or None,
        idempotent=said.idempotent,
        facts={} if said.items is None else {"requests": types.of(said.items)},
    )


def _parameter(said: ParameterDescription, kind: Any) -> Parameter:
    if said.required:
        return Parameter(said.name, kind)
    return Parameter(said.name, kind, False, ... if said.default is msgspec.UNSET else said.default)


class SchemaTypes:
    """The types of one description: each definition is made once, when it is first met."""

    def __init__(self, definitions: dict[str, Schema], ref: str = _REF) -> None:
        """`ref` is what a reference to one of the definitions begins with."""
        self._ref = ref
        self._definitions = definitions
        self._made: dict[str, Any] = {}

    def of(self, schema: Any) -> Any:
        """The type of the values that a schema takes."""
        if not isinstance(schema, dict):
            return Any
        if isinstance(ref := schema.get("$ref"), str):
            return self._defined(ref.removeprefix(self._ref))
        if (arms := schema.get("anyOf") or schema.get("oneOf")) is not None:
            return _union([self.of(arm) for arm in arms])
        if len(only := schema.get("allOf", ())) == 1:
            return self.of(only[0])
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if values is not None:
            return _literal(values)
        if isinstance(kind := schema.get("type"), list):
            return _union([self.of({**schema, "type": each}) for each in kind])
        return self._of_kind(kind, schema)

    def _of_kind(self, kind: Any, schema: Schema) -> Any:
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            values = schema.get("additionalProperties")
            # the names of a JSON object are texts, whatever the keys of a dictionary were
            return dict[Any, self.of(values)] if isinstance(values, dict) else dict[Any, Any]  # type: ignore[misc]
        if kind == "string" and schema.get("contentEncoding") == "base64":
            return bytes
        if kind == "string" and schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        return _PLAIN.get(kind, Any)

    def _array(self, schema: Schema) -> Any:
        if (places := schema.get("prefixItems")) is not None:
            whole = schema.get("minItems") == schema.get("maxItems") == len(places)
            return tuple[tuple(map(self.of, places))] if whole else list[Any]  # type: ignore[misc]
        item = self.of(schema.get("items", {}))
        if schema.get("uniqueItems") is True:
            return set[item]  # type: ignore[valid-type]
        return list[item]  # type: ignore[valid-type]

    def _defined(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = Any  # while it is made: who holds itself is met again
            schema = self._definitions.get(name, {})
            is_model = schema.get("type") == "object" and "properties" in schema
            self._made[name] = self._model(name, schema) if is_model else self.of(schema)
        return self._made[name]

    def _model(self, name: str, schema: Schema) -> Any:
        options: dict[str, Any] = {"forbid_unknown_fields": schema.get("additionalProperties") is False}
        fields = []
        required = schema.get("required", ())
        for number, (wire, said) in enumerate(schema["properties"].items()):
            if wire in required and len(tag := _tag(said)) == 1:
                options |= {"tag_field": wire, "tag": tag[0]}
                continue
            type = self.of(said)
            field = msgspec.field(name=wire) if wire in required else msgspec.field(name=wire, **_default(said, type))
            fields.append((identifier(wire, number), type, field))
        # by keyword only, since JSON Schema has no order that puts required fields first
        return msgspec.defstruct(identifier(name, 0), fields, kw_only=True, **options)


def _tag(said: Any) -> list[Any]:
    """The values of a field that says which model it is: it takes one text or number, and has no default."""
    values = said.get("enum", ()) if isinstance(said, dict) and said.keys() == {"enum"} else ()
    return [value for value in values if isinstance(value, str | int)] if len(values) == 1 else []


def _default(said: Any, type: Any) -> dict[str, Any]:
    default = said.get("default", msgspec.NODEFAULT) if isinstance(said, dict) else msgspec.NODEFAULT
    if default in ([], {}) and not _is_model(type):
        made = set if said.get("uniqueItems") is True else default.__class__
        return {"default_factory": made}
    if default is None or isinstance(default, bool | int | float | str):
        return {"default": default}
    return {"default_factory": lambda: default}  # it cannot be written, so it is left to the callee


def _is_model(type: Any) -> bool:
    # of a model an empty object says that each field has the default of its own
    return inspect.isclass(type) and issubclass(type, msgspec.Struct)


def _union(arms: list[Any]) -> Any:
    # beside Any an arm says nothing
    return Any if Any in arms else Union[tuple(arms)]  # noqa: UP007 - types known at run time only


def _literal(values: list[Any]) -> Any:
    sayable = [value for value in values if value is None or isinstance(value, str | int)]
    return Literal[tuple(sayable)] if sayable and len(sayable) == len(values) else Any


def identifier(name: str, number: int) -> str:
    """A Python identifier for a name, which keeps its own spelling on the wire."""
    made = "".join(_letters(name)).strip("_") or f"field{number}"
    return f"{made}_" if keyword.iskeyword(made) else made if made[0].isalpha() else f"field_{made}"


def _letters(name: str) -> Iterator[str]:
    for letter in name:
        yield letter if letter.isascii() and letter.isalnum() else "_"
