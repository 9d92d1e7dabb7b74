"""Deployments written into a document: requirements within their range, and names that lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator

from bema.packages.context import Hit, RuleContext
from bema.packages.nodes import Path
from bema.packages.opackage import ConsistencyModel

_SHARDS = ("mst", "raft", "none")


def throughput_zero(context: RuleContext) -> Iterator[Hit]:
    """With the ranges below, a rule the model declares and nothing calls."""
    for d, deployment in enumerate(context.package.deployments):
        if deployment.nfr_requirements.min_throughput_rps == 0:
            path = ("deployments", d, "nfr_requirements", "min_throughput_rps")
            yield Hit(path, "Min throughput must be greater than 0", "Leave it out where there is no requirement.")


def availability_range(context: RuleContext) -> Iterator[Hit]:
    for d, deployment in enumerate(context.package.deployments):
        wanted: list[tuple[Path, float | None]] = [
            (("deployments", d, "nfr_requirements", "availability"), deployment.nfr_requirements.availability)
        ]
        for f, spec in enumerate(deployment.functions):
            if spec.qos_requirement is not None:
                path: Path = ("deployments", d, "functions", f, "qos_requirement", "availability")
                wanted.append((path, spec.qos_requirement.availability))
        for path, value in wanted:
            if value is not None and not 0 <= value <= 1:
                yield Hit(path, f"Availability must be between 0 and 1, not {value:g}", "0.999 is three nines.")


def cpu_target_range(context: RuleContext) -> Iterator[Hit]:
    for d, deployment in enumerate(context.package.deployments):
        value = deployment.nfr_requirements.cpu_utilization_target
        if value is not None and not 0 <= value <= 1:
            path = ("deployments", d, "nfr_requirements", "cpu_utilization_target")
            fix = f"Write {value / 100:g}." if 1 < value <= 100 else ""
            yield Hit(path, f"CPU utilization target must be between 0 and 1, not {value:g}", fix)


def sampling_range(context: RuleContext) -> Iterator[Hit]:
    for d, deployment in enumerate(context.package.deployments):
        value = deployment.telemetry.sampling_rate if deployment.telemetry else None
        if value is not None and not 0 <= value <= 1:
            yield Hit(("deployments", d, "telemetry", "sampling_rate"), f"a sampling rate of {value:g} is not a share")


def odgm_count(context: RuleContext) -> Iterator[Hit]:
    for d, deployment in enumerate(context.package.deployments):
        for name in ("partition_count", "replica_count"):
            if deployment.odgm and getattr(deployment.odgm, name) == 0:
                yield Hit(("deployments", d, "odgm", name), f"{name} must be at least 1")


def shard_type(context: RuleContext) -> Iterator[Hit]:
    for d, deployment in enumerate(context.package.deployments):
        kind = deployment.odgm.shard_type if deployment.odgm else None
        if kind is not None and kind not in _SHARDS:
            yield Hit(
                ("deployments", d, "odgm", "shard_type"), f"shard_type {kind!r} counts as none", "Use mst or raft."
            )


def strong_without_raft(context: RuleContext) -> Iterator[Hit]:
    """The model carries both and connects neither: a STRONG class on `mst` or `none` silently is not."""
    strong = {
        cls.key
        for cls in context.package.classes
        if cls.state_spec and cls.state_spec.consistency_model is ConsistencyModel.STRONG
    }
    for d, deployment in enumerate(context.package.deployments):
        kind = deployment.odgm.shard_type if deployment.odgm else None
        if deployment.class_key in strong and kind != "raft":
            message = f"class {deployment.class_key} is STRONG, which the data plane keeps only with shard_type raft"
            yield Hit(("deployments", d), message, "Add odgm.shard_type: raft.")


def deployment_package(context: RuleContext) -> Iterator[Hit]:
    for d, deployment in enumerate(context.package.deployments):
        if deployment.package_name and deployment.package_name != context.package.name:
            message = f"deploys a class of {deployment.package_name}, not of {context.package.name}"
            yield Hit(("deployments", d, "package_name"), message)


def deployment_class(context: RuleContext) -> Iterator[Hit]:
    """A document without classes is a list of deployments for a package that is stored already."""
    keys = {cls.key for cls in context.package.classes}
    for d, deployment in enumerate(context.package.deployments):
        own = deployment.package_name == context.package.name
        if keys and own and deployment.class_key and deployment.class_key not in keys:
            yield Hit(("deployments", d, "class_key"), f"the package has no class {deployment.class_key}")


def deployment_function(context: RuleContext) -> Iterator[Hit]:
    bound = {cls.key: {b.function_key for b in cls.function_bindings} for cls in context.package.classes}
    for d, deployment in enumerate(context.package.deployments):
        keys = bound.get(deployment.class_key)
        for f, spec in enumerate(deployment.functions if keys is not None else ()):
            if spec.function_key and spec.function_key not in keys:  # type: ignore[operator]
                message = f"class {deployment.class_key} binds no function {spec.function_key}"
                yield Hit(("deployments", d, "functions", f, "function_key"), message)
