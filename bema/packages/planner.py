"""Plan: where the classes of a document run, and with how many replicas.

Laws: the same document, environments and seed give the same plan; nothing is read or started. Where a requirement cannot be
met, the plan says which one and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from msgspec.structs import replace

from bema.core.errors import Invalid, NotFound
from bema.packages import environments, replicas, units
from bema.packages.environments import Environment
from bema.packages.opackage import (
    ConsistencyModel,
    DeploymentStatusSummary,
    FunctionDeploymentSpec,
    OClass,
    OClassDeployment,
    OdgmDataSpec,
    OPackage,
    ProvisionConfig,
    to_data,
)
from bema.packages.replicas import Demand, Measure, scaled


class Wishes(NamedTuple):
    """What the caller gives beside the document: images and measured rates by function, and a seed for ids."""

    images: Mapping[str, str] = {}
    measured: Mapping[str, Measure] = {}
    seed: int = 0


class Plan(NamedTuple):
    """One deployment, filled in. It fits when `conflicts` is empty."""

    deployment: OClassDeployment
    replicas: int
    reached: float
    target: float
    units: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    conflicts: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        return {
            "deployment": to_data(self.deployment),
            "replicas": self.replicas,
            "target_availability": self.target,
            "reached_availability": round(self.reached, 12),
            "fits": not self.conflicts,
            "conflicts": list(self.conflicts),
            "notes": list(self.notes),
            "units": [*self.units],
        }


def plan(
    package: OPackage,
    known: Sequence[Environment],
    *,
    classes: Sequence[str] = (),
    wishes: Wishes | None = None,
) -> list[Plan]:
    """A plan for every deployment in the document, and one for every class without a deployment.

    Raises:
        NotFound: `classes`, `wishes` or a deployment name a class or function that the package does not have.
        Invalid: a requirement is impossible (code `no_plan`).
    """
    wishes = wishes or Wishes()
    by_key = {cls.key: cls for cls in package.classes}
    for key in classes:
        if key not in by_key:
            raise NotFound(
                f"package {package.name} has no class {key!r}", fix=f"It has: {', '.join(by_key) or 'none'}."
            )
    _check_functions(package, wishes)
    picked = [d for d in _deployments(package) if not classes or d.class_key in classes]
    named = {environment.name: environment for environment in known}
    return [_plan(package, by_key, deployment, named, wishes) for deployment in picked]


def _deployments(package: OPackage) -> list[OClassDeployment]:
    # a plan fills deployments in; the caller's document stays as it was read
    written = [deepcopy(deployment) for deployment in package.deployments]
    placed = {deployment.class_key for deployment in written}
    rest = [cls.key for cls in package.classes if cls.key not in placed]
    return [*written, *(OClassDeployment(key, package.name, key) for key in rest)]


def _check_functions(package: OPackage, wishes: Wishes) -> None:
    keys = {function.key for function in package.functions}
    for key in (*wishes.images, *wishes.measured):
        if key not in keys:
            raise NotFound(f"package {package.name} has no function {key!r}", fix=f"It has: {', '.join(sorted(keys))}.")


def _plan(
    package: OPackage,
    classes: Mapping[str, OClass],
    deployment: OClassDeployment,
    known: Mapping[str, Environment],
    wishes: Wishes,
) -> Plan:
    cls = classes.get(deployment.class_key)
    if deployment.package_name != package.name or cls is None:
        raise NotFound(
            f"deployment {deployment.key} is of class {deployment.package_name}.{deployment.class_key}, which is not in"
            f" package {package.name}"
        )
    notes: list[str] = []
    conflicts: list[str] = []
    target = _target(deployment)
    found = environments.candidates(deployment, known, notes)
    health = {environment.name: environment.health() for environment in found}
    sized = replicas.for_availability(target, list(health.values()))
    if not sized.enough:
        conflicts.append(_shortfall(deployment, target, sized, health))
    count = sized.replicas
    if cls.state_spec is not None and cls.state_spec.consistency_model is ConsistencyModel.STRONG:
        count = replicas.for_strong(count)
    selected = _selected(deployment, health, count)
    demand = Demand(deployment.key, count, deployment.nfr_requirements.min_throughput_rps, wishes)
    deployment.functions = [
        scaled(spec, demand, notes, conflicts) for spec in _functions(package, cls, deployment, notes)
    ]
    _fill_data(deployment, selected, wishes.seed)
    deployment.status = DeploymentStatusSummary(count, selected, sized.reached)
    made = units.units(deployment, cls, selected, wishes.seed)
    return Plan(deployment, count, sized.reached, target, made, tuple(notes), tuple(conflicts))


def _target(deployment: OClassDeployment) -> float:
    wanted = deployment.nfr_requirements.availability
    if wanted is None:
        return replicas.DEFAULT_AVAILABILITY
    if not 0 <= wanted <= 1:  # the reference planner takes 0.99 instead and says nothing
        raise Invalid(
            f"{deployment.key}: availability {wanted:g} is not between 0 and 1",
            code="no_plan",
            fix="0.999 is three nines.",
        )
    return wanted


def _shortfall(
    deployment: OClassDeployment, target: float, sized: replicas.ReplicaCount, health: Mapping[str, float]
) -> str:
    seen = ", ".join(f"{name} {share:g}" for name, share in health.items())
    return (
        f"{deployment.key}: availability {target:g} cannot be had: a quorum of all {sized.replicas} environments reaches"
        f" {sized.reached:.6g} ({seen}). Add environments, better ones, or lower nfr_requirements.availability."
    )


def _selected(deployment: OClassDeployment, health: Mapping[str, float], count: int) -> list[str]:
    """The environments to use: all target environments, else the best, one per replica."""
    if deployment.target_envs:
        return list(health)
    best_first = sorted(health, key=lambda name: (-health[name], name))
    return best_first[: max(count, 1)]


def _functions(
    package: OPackage, cls: OClass, deployment: OClassDeployment, notes: list[str]
) -> list[FunctionDeploymentSpec]:
    """The functions that the deployment lists, else those that the class binds, each once."""
    known = {function.key: function for function in package.functions}
    listed = {spec.function_key: spec for spec in deployment.functions}
    # the reference planner makes an entry per binding: two names for one function start two workloads
    bound = list(dict.fromkeys(binding.function_key for binding in cls.function_bindings))
    left_out = [key for key in bound if listed and key not in listed]
    notes += [f"{deployment.key}: function {key} is bound but not listed: left out" for key in left_out]
    specs = [replace(spec) for spec in listed.values()] or [FunctionDeploymentSpec(key) for key in bound]
    for spec in specs:
        function = known.get(spec.function_key)
        if function is None:
            notes.append(f"{deployment.key}: function {spec.function_key} is of another package: planned as it is")
            continue
        spec.description = spec.description or function.description
        spec.provision_config = _overlaid(function.provision_config, spec.provision_config)
        # what the deployment says of its function is the later word
        spec.config = {**function.config, **spec.config}
    return specs


def _overlaid(below: ProvisionConfig | None, above: ProvisionConfig | None) -> ProvisionConfig | None:
    """The provisioning of a function, overlaid by that of the deployment."""
    # the model does not tell an absent field from one at its default, so a default overlays nothing
    if below is None or above is None:
        return above or below
    nothing = ProvisionConfig()
    merged = replace(below)
    for name in ProvisionConfig.__struct_fields__:
        if getattr(above, name) != getattr(nothing, name):
            setattr(merged, name, getattr(above, name))
    return merged


def _fill_data(deployment: OClassDeployment, selected: Sequence[str], seed: int) -> None:
    odgm = deployment.odgm = deployment.odgm or OdgmDataSpec()
    odgm.collections = odgm.collections or [f"{deployment.package_name}.{deployment.class_key}"]
    odgm.log = "info" if odgm.log is None else odgm.log
    odgm.replica_count = len(selected)
    if not odgm.env_node_ids:
        odgm.env_node_ids = {name: [units.node_id(seed, deployment.key, name)] for name in selected}
