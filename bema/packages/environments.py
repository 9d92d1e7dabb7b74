"""Environments: the availability of each cluster, and which of them a deployment may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bema.core.errors import Invalid
from bema.packages.opackage import OClassDeployment


class Environment(NamedTuple):
    """One cluster: the availability it reports, or how many of its nodes are ready."""

    name: str
    availability: float | None = None
    nodes: int | None = None
    ready: int | None = None

    def health(self) -> float:
        # a cluster that reports no nodes is refused even when it claims an availability: nothing can be placed there
        if self.nodes == 0:
            raise Invalid(f"environment {self.name} reports zero nodes", code="no_plan", environment=self.name)
        if self.availability is not None:
            if not 0 <= self.availability <= 1:
                raise Invalid(
                    f"environment {self.name}: availability {self.availability:g} is not between 0 and 1",
                    code="no_plan",
                    environment=self.name,
                )
            return self.availability
        if self.nodes is None or self.ready is None:
            raise Invalid(
                f"environment {self.name} has neither an availability nor ready and node counts",
                code="no_plan",
                environment=self.name,
            )
        if not 0 <= self.ready <= self.nodes:
            raise Invalid(
                f"environment {self.name}: {self.ready} of {self.nodes} nodes cannot be ready",
                code="no_plan",
                environment=self.name,
            )
        return self.ready / self.nodes


def parse(text: str) -> Environment:
    """`NAME`, `NAME=0.99` or `NAME=READY/NODES`. A bare name counts as 0.99, what clusters report by default."""
    name, equals, said = text.partition("=")
    if not name:
        raise Invalid(f"environment {text!r} has no name", code="no_plan", fix="Write NAME, NAME=0.99 or NAME=2/3.")
    try:
        if not equals:
            return Environment(name, 0.99)
        ready, slash, nodes = said.partition("/")
        if slash:
            return Environment(name, None, int(nodes), int(ready))
        return Environment(name, float(said))
    except ValueError as error:
        raise Invalid(
            f"environment {text!r}: {said!r} is neither an availability nor READY/NODES",
            code="no_plan",
            fix="Write NAME, NAME=0.99 or NAME=2/3.",
        ) from error


def candidates(
    deployment: OClassDeployment, known: Mapping[str, Environment], notes: list[str]
) -> Sequence[Environment]:
    """The target environments as they are, else those available and known, else all known."""
    for name in deployment.target_envs:
        if name not in known:
            raise Invalid(
                f"{deployment.key}: unknown target environment {name!r}",
                code="no_plan",
                fix=f"Known are: {', '.join(known) or 'none'}; name more with --env.",
                environment=name,
            )
    if deployment.target_envs:
        return [known[name] for name in dict.fromkeys(deployment.target_envs)]
    if not deployment.available_envs:
        found = list(known.values())
    else:
        found = [known[name] for name in dict.fromkeys(deployment.available_envs) if name in known]
        unknown = [name for name in deployment.available_envs if name not in known]
        notes += [f"environment {name} is listed as available but unknown: left out" for name in unknown]
    if not found:
        raise Invalid(
            f"{deployment.key}: no eligible environments found",
            code="no_plan",
            fix="Name some with --env, or widen available_envs.",
        )
    return found
