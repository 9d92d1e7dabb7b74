"""Units: what is sent to each environment, with its routes, and which node holds which partition of the data.

Law: ids come from a hash of the seed and the names, so that the same plan has the same ids.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bema.core.errors import Invalid
from bema.packages.opackage import OClass, OClassDeployment, to_data

_LABEL = 54  # a DNS label has 63 characters; the id adds "-" and eight of its own
_MOST_PLACES = 2_000_000  # 2**32 partitions are a document of forty characters
_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"


def node_id(seed: int, *names: str) -> int:
    """A number of 32 bits, never 0."""
    # upstream a random u32; derived here, for two runs of one plan must not move the data to new nodes
    return int.from_bytes(_digest(seed, *names)[:4]) or 1


def unit_id(seed: int, class_key: str, *names: str) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", class_key.lower()).strip("-")[:_LABEL].strip("-") or "class"
    return f"{label}-{''.join(_DIGITS[byte % len(_DIGITS)] for byte in _digest(seed, class_key, *names)[:8])}"


def _digest(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()


def assignments(partitions: int, copies: int, nodes: Sequence[int]) -> list[dict[str, Any]]:
    """Per partition: the least used node is primary, replicas follow round-robin, shard ids count up from 1."""
    used: Counter[int] = Counter(dict.fromkeys(nodes, 0))
    order = {node: index for index, node in enumerate(nodes)}
    shard = 0
    made = []
    for _partition in range(partitions):
        # in their order among the equally used, so that the same plan comes out every time
        first = min(nodes, key=lambda node: (used[node], order[node]))
        at = order[first]
        held = [nodes[(at + step) % len(nodes)] for step in range(min(copies, len(nodes)))]
        used.update(held)
        made.append({"primary": first, "replica": held, "shard_ids": [shard + 1 + step for step in range(len(held))]})
        shard += len(held)
    return made


def units(deployment: OClassDeployment, cls: OClass, selected: Sequence[str], seed: int) -> tuple[dict[str, Any], ...]:
    odgm = deployment.odgm
    assert odgm is not None
    nodes = list(dict.fromkeys(node for ids in odgm.env_node_ids.values() for node in ids))
    partitions = odgm.partition_count or 1
    if partitions * len(odgm.collections) * len(nodes) * len(selected) > _MOST_PLACES:
        raise Invalid(
            f"{deployment.key}: {partitions} partitions are more than a plan can list, one by one for each collection,"
            " node and environment",
            code="no_plan",
            fix="Lower odgm.partition_count.",
        )
    placed = {
        collection: assignments(partitions, odgm.replica_count or 1, nodes) for collection in odgm.collections if nodes
    }
    shared = {
        "functions": [to_data(spec) for spec in deployment.functions],
        "function_bindings": [to_data(binding) for binding in cls.function_bindings],
        "routes": _routes(cls),
    }
    return tuple(_unit(deployment, environment, placed, shared, seed) for environment in selected)


def _routes(cls: OClass) -> dict[str, dict[str, Any]]:
    return {
        binding.name: {
            "function_key": binding.function_key,
            "stateless": binding.stateless,
            "standby": False,
            "url": "",
        }
        for binding in cls.function_bindings
    }


def _unit(
    deployment: OClassDeployment,
    environment: str,
    placed: Mapping[str, list[dict[str, Any]]],
    shared: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    odgm = deployment.odgm
    assert odgm is not None
    own = odgm.env_node_ids.get(environment, [])
    return {
        "id": unit_id(seed, deployment.class_key, deployment.key, environment),
        "package_name": deployment.package_name,
        "class_key": deployment.class_key,
        "target_env": environment,
        "template": deployment.env_templates.get(environment),
        **shared,
        "odgm": {
            "collections": list(odgm.collections),
            "node_id": own[0] if own else None,
            "partition_count": odgm.partition_count or 1,
            "replica_count": odgm.replica_count,
            "collection_assignments": dict(placed),
        },
    }
