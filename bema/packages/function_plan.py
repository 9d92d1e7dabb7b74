"""One function's share of a plan: its image, and bounds that are the author's where the author gave any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from bema.packages.opackage import FunctionDeploymentSpec, ProvisionConfig
from bema.packages.replicas import MOST_FOR_THROUGHPUT, Measure, for_throughput


class _Wishes(Protocol):
    @property
    def images(self) -> Mapping[str, str]: ...
    @property
    def measured(self) -> Mapping[str, Measure]: ...


class Demand(NamedTuple):
    """What the deployment requires of each of its functions."""

    deployment: str
    replicas: int
    rps: int | None
    wishes: _Wishes


def scaled(
    spec: FunctionDeploymentSpec, demand: Demand, notes: list[str], conflicts: list[str]
) -> FunctionDeploymentSpec:
    """The spec with its image and bounds; the author's min_scale and max_scale are never overwritten."""
    config = replace(spec.provision_config) if spec.provision_config else None
    key = spec.function_key
    image = demand.wishes.images.get(key)
    if image is not None:
        config = config or ProvisionConfig(need_http2=True)
        config.container_image = image
    spec = replace(spec, provision_config=config)
    if config is None:
        notes.append(f"{demand.deployment}: function {key} has no provision_config: nothing to scale")
        return spec
    wanted = max(demand.replicas, _for_rate(spec, demand, notes, conflicts), 1)
    if config.max_scale is not None and config.max_scale < wanted:
        conflicts.append(
            f"{demand.deployment}: function {key} needs {wanted} replicas but max_scale is {config.max_scale}. Raise"
            " max_scale, or require less."
        )
    # the reference planner writes max(1, replicas) over min_scale, so that nobody can ask for scale to zero
    if config.min_scale is None:
        config.min_scale = wanted if config.max_scale is None else min(wanted, config.max_scale)
    elif config.min_scale < wanted:
        notes.append(f"{demand.deployment}: function {key} keeps min_scale {config.min_scale}, below {wanted} replicas")
    return spec


def _for_rate(spec: FunctionDeploymentSpec, demand: Demand, notes: list[str], conflicts: list[str]) -> int:
    """Replicas for the required rate: the function's own requirement, else the deployment's."""
    own = spec.qos_requirement.throughput if spec.qos_requirement else 0
    rps = own or demand.rps
    key = spec.function_key
    if not rps:
        return 0
    measured = demand.wishes.measured.get(key)
    if measured is None:
        notes.append(f"{demand.deployment}: {rps} rps of {key} cannot be sized: say what one replica does (--measured)")
        return 0
    wanted = for_throughput(rps, measured)
    if wanted * measured.rps < rps and wanted >= MOST_FOR_THROUGHPUT:
        conflicts.append(
            f"{demand.deployment}: function {key} needs {rps} rps; {wanted} replicas, the most, do"
            f" {wanted * measured.rps:g}. Make it faster, or require less."
        )
    return wanted
