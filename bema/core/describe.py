"""Description: a `ServiceSpec` as data that leaves the process, with JSON Schema for what goes in and comes out.

Laws: callers without the class know a service by its description alone. Every component answers it at a built-in endpoint
whose name no user's endpoint can have. The record of an instance holds its digest, so that a caller asks once per digest.
Equal services give equal bytes in every process. Schemas are made when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from bema.core import type_text
from bema.core.digest import digest_of, types_of
from bema.core.errors import ProtocolError
from bema.core.instance import EndpointInfo, Instance
from bema.core.schemas import DIALECT, Schema, schemas_of
from bema.core.spec import EndpointSpec, Parameter, ServiceSpec, Shape


class ParameterDescription(msgspec.Struct, frozen=True):
    """One parameter: `type` is its annotation as text; `default` is absent where it has no JSON form."""

    name: str
    type: str = "Any"
    required: bool = True
    default: Any = msgspec.UNSET


class EndpointDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint.

    - `request`: the schema of the arguments by name; `response`: of the answer, or of each item where answers stream.
    - `incoming`: the parameter that takes a stream, or empty; `items`: the schema of its items, or null.
    - `returns` and `takes`: the types of an answer and of an incoming item as text, for people.
    - `raises`: the names of the exceptions that reach callers as themselves.
    """

    name: str
    shape: Shape = Shape.UNARY
    doc: str = ""
    idempotent: bool = False
    resumable: bool = False
    durable: bool = False
    parameters: tuple[ParameterDescription, ...] | None = None  # None where the instance does not say
    incoming: str = ""
    takes: str = ""
    returns: str = "Any"
    raises: tuple[str, ...] = ()
    request: Schema = {}
    items: Schema | None = None
    response: Schema = {}

    @property
    def signature(self) -> str:
        """For people: `words(text: str, every: int = 1) -> stream of str`."""
        given = [f"{self.incoming}: stream of {self.takes}"] if self.incoming else []
        given += ["..."] if self.parameters is None else [_shown(each) for each in self.parameters]
        returns = f"stream of {self.returns}" if self.shape.streams_out else self.returns
        return f"{self.name}({', '.join(given)}) -> {returns}"


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """One service. The schemas of its endpoints refer to `definitions` as `#/$defs/NAME`."""

    name: str
    namespace: str
    version: str = ""
    doc: str = ""
    slots: int | None = None
    queue: int = 0
    endpoints: tuple[EndpointDescription, ...] = ()
    definitions: dict[str, Schema] = msgspec.field(default={}, name="$defs")
    dialect: str = msgspec.field(default="", name="$schema")
    notes: tuple[str, ...] = ()  # what the schemas cannot say
    digest: str = ""

    @property
    def address(self) -> str:
        """`namespace.component`."""
        return f"{self.namespace}.{self.name}"

    def endpoint(self, name: str) -> EndpointDescription | None:
        """The endpoint of that name, or None."""
        return next((each for each in self.endpoints if each.name == name), None)


def describe(spec: ServiceSpec) -> Description:
    """The description of a service with its schemas. Large models take some milliseconds."""
    each, definitions, notes = schemas_of([kind for endpoint in spec.endpoints for kind in types_of(endpoint)])
    schemas = iter(each)
    return Description(
        name=spec.name,
        namespace=spec.namespace,
        version=spec.version,
        doc=spec.doc,
        slots=spec.slots,
        queue=spec.queue,
        endpoints=tuple(
            _endpoint(endpoint, [next(schemas) for _ in types_of(endpoint)]) for endpoint in spec.endpoints
        ),
        definitions=definitions,
        dialect=DIALECT,
        notes=notes,
        digest=digest_of(spec),
    )


def encode(description: Description) -> bytes:
    """The description as JSON."""
    return msgspec.json.encode(description)


def decode(said: bytes) -> Description:
    """Read a description; fields that a newer bema adds are passed over.

    Raises:
        ProtocolError: `said` is no description.
    """
    try:
        return msgspec.json.decode(said, type=Description)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"this is no description of a service: {error}") from error


def told(instance: Instance) -> Description:
    """The description that a record alone allows, for instances that answer none: the names and shapes of endpoints."""
    return Description(
        name=instance.component, namespace=instance.namespace, endpoints=tuple(map(_told_endpoint, instance.endpoints))
    )


def _endpoint(spec: EndpointSpec, schemas: list[Schema]) -> EndpointDescription:
    *parameters, response = schemas
    items = parameters.pop() if spec.shape.streams_in else None
    return EndpointDescription(
        name=spec.name,
        shape=spec.shape,
        doc=spec.doc,
        idempotent=spec.idempotent,
        resumable=spec.resumable,
        durable=spec.durable,
        parameters=tuple(map(_parameter, spec.parameters)),
        incoming=(spec.incoming or "requests") if spec.shape.streams_in else "",
        takes=type_text.text(spec.facts.get("requests", Any)) if spec.shape.streams_in else "",
        returns=type_text.text(spec.returns),
        raises=tuple(kind.__qualname__ for kind in spec.facts.get("raises", ())),
        request=_request(spec.parameters, parameters),
        items=items,
        response=response,
    )


def _request(parameters: tuple[Parameter, ...], schemas: Iterable[Schema]) -> Schema:
    properties = {}
    for parameter, schema in zip(parameters, schemas, strict=True):
        default = _default(parameter)
        properties[parameter.name] = schema if default is msgspec.UNSET else {**schema, "default": default}
    return {
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in parameters if parameter.required],
        "additionalProperties": False,
    }


def _parameter(parameter: Parameter) -> ParameterDescription:
    return ParameterDescription(parameter.name, type_text.text(parameter.type), parameter.required, _default(parameter))


def _default(parameter: Parameter) -> Any:
    """The default of a parameter as JSON has it; unset where there is none, or where it has no JSON form."""
    if parameter.required:
        return msgspec.UNSET
    try:
        return msgspec.json.decode(msgspec.json.encode(parameter.default, order="deterministic"))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.UNSET


def _shown(parameter: ParameterDescription) -> str:
    shown = f"{parameter.name}: {parameter.type}"
    if parameter.required:
        return shown
    return f"{shown} = ..." if parameter.default is msgspec.UNSET else f"{shown} = {parameter.default!r}"


def _told_endpoint(info: EndpointInfo) -> EndpointDescription:
    fields: Schema = {} if info.fields is None else {"properties": {name: {} for name in info.fields}}
    given = {name: dict(fields) for name in info.parameters or ()}
    return EndpointDescription(
        name=info.name,
        shape=info.shape,
        idempotent=info.idempotent,
        resumable=info.resumable,
        durable=info.durable,
        doc=f"Takes {info.parameters[0]} with {', '.join(info.fields)}." if info.parameters and info.fields else "",
        parameters=None
        if info.parameters is None
        else tuple(ParameterDescription(n, "Any", False) for n in info.parameters),
        incoming="requests" if info.shape.streams_in else "",
        takes="Any" if info.shape.streams_in else "",
        request={} if info.parameters is None else {"type": "object", "properties": given},
        items={} if info.shape.streams_in else None,
    )
