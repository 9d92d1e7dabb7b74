"""`bema package plan`: where a document's classes would run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from bema.cli import output
from bema.cli.package_lint import not_python
from bema.core.errors import Invalid
from bema.packages import environments
from bema.packages.environments import Environment
from bema.packages.opackage import OPackage, to_data
from bema.packages.planner import Plan, Wishes, plan
from bema.packages.reader import read
from bema.packages.replicas import Measure


@click.command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--env", "envs", multiple=True, metavar="NAME[=0.99|=READY/NODES]", help="An environment; may be repeated."
)
@click.option("--class", "classes", multiple=True, metavar="KEY", help="Only this class; may be repeated.")
@click.option("--image", "images", multiple=True, metavar="FUNCTION=REF", help="Another image for this deployment.")
@click.option(
    "--measured",
    multiple=True,
    metavar="FUNCTION=RPS[,MILLICORES[,P99_MS]]",
    help="What one replica does, to size for throughput.",
)
@click.option("--seed", type=int, default=0, help="Of the ids; the same seed gives the same ids.", show_default=True)
@output.json_option
def plan_command(
    file: Path,
    envs: tuple[str, ...],
    classes: tuple[str, ...],
    images: tuple[str, ...],
    measured: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> int:
    """Plan a document's deployments; exit 1 where what it requires cannot be had."""
    package = read(not_python(file))
    known = [environments.parse(text) for text in envs] or _mentioned(package)
    _once("--env", [environment.name for environment in known])
    if not envs:
        output.note(f"note: no --env: assuming {', '.join(f'{e.name} at {e.availability:g}' for e in known)}")
    wishes = Wishes(_pairs("--image", images), _measures(measured), seed)
    plans = plan(package, known, classes=classes, wishes=wishes)
    conflicts = [conflict for found in plans for conflict in found.conflicts]
    if as_json:
        output.print_json(_as_data(package, plans))
    else:
        _print(plans)
        for note in (note for found in plans for note in found.notes):
            output.note(f"note: {note}")
        for conflict in conflicts:
            output.note(f"{output.style('conflict', fg='red')}: {conflict}")
    return 1 if conflicts else 0


def _mentioned(package: OPackage) -> list[Environment]:
    """Without --env: those the document names, else one, each at the default availability."""
    names = [name for d in package.deployments for name in (*d.target_envs, *d.available_envs)]
    return [environments.parse(name) for name in dict.fromkeys(names or ["local"])]


def _as_data(package: OPackage, plans: list[Plan]) -> dict[str, object]:
    """The deployments as a document the platform takes, and beside them what they rest on."""
    return {
        "name": package.name,
        "version": package.version,
        "deployments": [to_data(found.deployment) for found in plans],
        "plans": [found.as_data() for found in plans],
    }


def _print(plans: list[Plan]) -> None:
    headings = ("DEPLOYMENT", "CLASS", "REPLICAS", "AVAILABILITY", "TARGET", "ENVIRONMENTS", "FUNCTIONS")
    rows = [
        (
            found.deployment.key,
            found.deployment.class_key,
            found.replicas,
            f"{found.reached:.6g}",
            f"{found.target:g}",
            ",".join(unit["target_env"] for unit in found.units),
            ",".join(spec.function_key for spec in found.deployment.functions) or "-",
        )
        for found in plans
    ]
    output.print_table(headings, rows)


def _measures(measured: tuple[str, ...]) -> dict[str, Measure]:
    return {key: _measure(key, said) for key, said in _pairs("--measured", measured).items()}


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [_pair(text) for text in texts]
    _once(option, [key for key, _ in pairs])
    return dict(pairs)


def _once(option: str, names: list[str]) -> None:
    """Of two values for one name neither is more right than the other."""
    for name, times in Counter(names).items():
        if times > 1:
            raise Invalid(f"{option} says two things of {name}", code="usage", fix="Say one.")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise Invalid(f"{text!r} is not FUNCTION=VALUE", code="usage", fix="Write it like counter.incr=VALUE.")
    return key, value


def _measure(key: str, said: str) -> Measure:
    try:
        numbers = [float(part) for part in said.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(0 <= n < float("inf") for n in numbers) or numbers[0] <= 0:
        raise Invalid(
            f"--measured {key}={said}: not RPS[,MILLICORES[,P99_MS]]",
            code="usage",
            fix=f"Write --measured {key}=120,250,80.",
        )
    return Measure(*numbers)
