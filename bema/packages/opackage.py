"""OPackage: the model of the document, field for field as the Rust structs declare it.

Law: the types below are the only description of the document. Reading, printing, JSON Schema and planning follow from
them; a field that is not here does not exist for the platform.
"""

from __future__ import annotations

import enum
import math
from functools import cache
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Struct, field

U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Meta(ge=0, extra_json_schema={"maximum": 2**64 - 1})]  # more than msgspec can compare
# What follows is said to editors only: reading takes these values as the model does, and lint refuses them with a reason.
_DAY = "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\\.[0-9]+)?"
_ZONE = "(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])"
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time", "pattern": f"^{_DAY}[Tt ]{_TIME}{_ZONE}$"})]
Name = Annotated[str, Meta(extra_json_schema={"minLength": 1})]
PackageName = Annotated[str, Meta(extra_json_schema={"minLength": 1, "pattern": "^[^ ]*$"})]
ClassKey = Annotated[str, Meta(extra_json_schema={"minLength": 1, "pattern": "[A-Za-z0-9]"})]
_AMOUNT = "(?=.{0,32}$)\\+?(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?"
Quantity = Annotated[  # `2` may be written bare, `true` is no quantity, and `${CPU}` is filled in later
    str,
    Meta(
        extra_json_schema={
            "not": {"type": "boolean"},
            "minimum": 0,
            "pattern": f"^(?:{_AMOUNT}|[\\s\\S]*\\$\\{{[\\s\\S]*)$",
        }
    ),
]
Port = Annotated[int, Meta(le=2**16 - 1, extra_json_schema={"minimum": 1})]
Count = Annotated[int, Meta(le=2**32 - 1, extra_json_schema={"minimum": 1})]
Share = Annotated[float, Meta(extra_json_schema={"minimum": 0, "maximum": 1})]


class FunctionType(enum.StrEnum):
    BUILTIN = "BUILTIN"
    CUSTOM = "CUSTOM"
    MACRO = "MACRO"
    LOGICAL = "LOGICAL"
    WASM = "WASM"


class AccessModifier(enum.StrEnum):
    PUBLIC = "PUBLIC"
    INTERNAL = "INTERNAL"
    PRIVATE = "PRIVATE"


class ConsistencyModel(enum.StrEnum):
    NONE = "NONE"
    READ_YOUR_WRITE = "READ_YOUR_WRITE"
    BOUNDED_STALENESS = "BOUNDED_STALENESS"
    STRONG = "STRONG"


class Condition(enum.StrEnum):
    PENDING = "PENDING"
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    DOWN = "DOWN"
    DELETED = "DELETED"


class Part(Struct):
    """A struct of the model. `quiet` names the fields that are left out of a print while they hold their default."""

    quiet: ClassVar[frozenset[str]] = frozenset()


class PackageMetadata(Part):
    author: str | None = None
    description: str | None = None
    tags: list[str] = field(default_factory=list)
    created_at: Instant | None = None
    updated_at: Instant | None = None
    quiet: ClassVar[frozenset[str]] = frozenset({"created_at", "updated_at"})


class KeySpecification(Part):
    name: Name
    key_type: str


class StateSpecification(Part):
    # The defaults here are serde's, the empty text; "memory" and "json" are those of the type's Default, which reading
    # never uses. So an export writes both, and lint asks for them.
    key_specs: list[KeySpecification] = field(default_factory=list)
    default_provider: str = ""
    consistency_model: ConsistencyModel = ConsistencyModel.NONE
    persistent: bool = False
    serialization_format: str = ""
    quiet: ClassVar[frozenset[str]] = frozenset({"key_specs", "default_provider"})


class FunctionBinding(Part):
    # access_modifier is required: PUBLIC is the type's Default, and serde was not told to use it
    name: Name
    function_key: Name
    access_modifier: AccessModifier
    stateless: bool = False
    parameters: list[str] = field(default_factory=list)


class OClass(Part):
    key: ClassKey
    description: str | None = None
    state_spec: StateSpecification | None = None
    function_bindings: list[FunctionBinding] = field(default_factory=list)


class ProvisionConfig(Part):
    # need_http2 is false when left out, though the platform speaks gRPC only: the reason of the rule http2-absent
    container_image: str | None = None
    wasm_module_url: str | None = None
    port: Port | None = None
    max_concurrency: U32 = 0
    need_http2: bool = False
    cpu_request: Quantity | None = None
    memory_request: Quantity | None = None
    cpu_limit: Quantity | None = None
    memory_limit: Quantity | None = None
    min_scale: U32 | None = None
    max_scale: U32 | None = None
    quiet: ClassVar[frozenset[str]] = frozenset({"container_image", "wasm_module_url"})


class OFunction(Part):
    key: Name
    function_type: FunctionType = FunctionType.CUSTOM
    description: str | None = None
    provision_config: ProvisionConfig | None = None
    config: dict[str, str] = field(default_factory=dict)


class NfrRequirements(Part):
    min_throughput_rps: Count | None = None
    availability: Share | None = None
    cpu_utilization_target: Share | None = None


class QosRequirement(Part):
    # the one place where an availability is required, and the one whose range nothing upstream looks at
    availability: Share
    throughput: U32 = 0


class FunctionDeploymentSpec(Part):
    function_key: Name
    description: str | None = None
    available_location: str | None = None
    qos_requirement: QosRequirement | None = None
    provision_config: ProvisionConfig | None = None
    config: dict[str, str] = field(default_factory=dict)
    quiet: ClassVar[frozenset[str]] = frozenset(
        {"description", "available_location", "qos_requirement", "provision_config", "config"}
    )


class OdgmDataSpec(Part):
    collections: list[str] = field(default_factory=list)
    partition_count: Count | None = None
    replica_count: Count | None = None
    shard_type: str | None = None
    env_node_ids: dict[str, list[U64]] = field(default_factory=dict)
    log: str | None = None
    quiet: ClassVar[frozenset[str]] = frozenset(
        {"collections", "partition_count", "replica_count", "shard_type", "env_node_ids", "log"}
    )


class TelemetryConfig(Part):
    enabled: bool | None = None
    traces: bool | None = None
    metrics: bool | None = None
    logs: bool | None = None
    sampling_rate: float | None = None
    service_name: str | None = None
    resource_attributes: dict[str, str] = field(default_factory=dict)
    quiet: ClassVar[frozenset[str]] = frozenset(
        {"enabled", "traces", "metrics", "logs", "sampling_rate", "service_name", "resource_attributes"}
    )


class DeploymentStatusSummary(Part):
    replication_factor: U32
    selected_envs: list[str] = field(default_factory=list)
    achieved_quorum_availability: float | None = None
    last_error: str | None = None
    quiet: ClassVar[frozenset[str]] = frozenset({"selected_envs", "achieved_quorum_availability", "last_error"})


class OClassDeployment(Part):
    key: Name
    package_name: Name
    class_key: Name
    target_envs: list[str] = field(default_factory=list)
    available_envs: list[str] = field(default_factory=list)
    nfr_requirements: NfrRequirements = field(default_factory=NfrRequirements)
    env_templates: dict[str, str] = field(default_factory=dict)
    functions: list[FunctionDeploymentSpec] = field(default_factory=list)
    condition: Condition = Condition.PENDING
    odgm: OdgmDataSpec | None = None
    telemetry: TelemetryConfig | None = None
    status: DeploymentStatusSummary | None = None
    created_at: Instant | None = None
    updated_at: Instant | None = None
    quiet: ClassVar[frozenset[str]] = frozenset(
        {
            "target_envs",
            "available_envs",
            "env_templates",
            "odgm",
            "telemetry",
            "status",
            "created_at",
            "updated_at",
        }
    )


class OPackage(Part):
    name: PackageName
    version: str | None = None
    metadata: PackageMetadata = field(default_factory=PackageMetadata)
    classes: list[OClass] = field(default_factory=list)
    functions: list[OFunction] = field(default_factory=list)
    dependencies: list[Name] = field(default_factory=list)
    deployments: list[OClassDeployment] = field(default_factory=list)


@cache
def _print_order(kind: type[Part]) -> tuple[tuple[str, bool], ...]:
    return tuple((name, name in kind.quiet) for name in kind.__struct_fields__)


def to_data(value: Any) -> Any:
    """Plain data as the Rust model prints it: every loud field, null where unset, quiet fields only when they say more."""
    # null or nothing is each field's own matter in the model (skip_serializing_if); whoever compares prints needs the same
    if isinstance(value, Part):
        kind = type(value)
        printed: dict[str, Any] = {}
        for name, quiet in _print_order(kind):
            item = getattr(value, name)
            if quiet and (item is None or item == _quiet_default(kind, name)):
                continue
            printed[name] = to_data(item)
        return printed
    if isinstance(value, list):
        return [to_data(item) for item in value]
    if isinstance(value, dict):
        return {key: to_data(item) for key, item in value.items()}
    if isinstance(value, enum.StrEnum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number: serde_json prints null
    return value


@cache
def _quiet_default(kind: type[Part], name: str) -> Any:
    found = next(f for f in msgspec.structs.fields(kind) if f.name == name)
    return found.default if found.default is not msgspec.NODEFAULT else found.default_factory()


# JSON Schema of the document, from the model's own types, for editors


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
    # a function without a type is CUSTOM, and those are called over gRPC
    definitions["OFunction"] |= {
        "if": {"properties": {"function_type": {"const": "CUSTOM"}}},
        "then": {"properties": {"provision_config": {"properties": {"need_http2": {"not": {"const": False}}}}}},
    }
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
