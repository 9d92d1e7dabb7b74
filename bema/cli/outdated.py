"""`bema outdated`: packages in the locks of deployments for which there are newer versions."""

from __future__ import annotations

import click

from bema.cli import api, output


@click.command()
@click.argument("name", required=False)
@output.json_option
def command(name: str | None, as_json: bool) -> None:
    """Packages of deployments for which there are newer versions.

    NAME is the name or the id that `bema ls` shows; without it all are looked at. What a script bounds stays within its bounds.
    A lock is kept until `bema deploy --upgrade NAME` makes a version with a newer one.
    """
    found: dict[str, list[api.Json]] = {}
    with output.Progress() as progress:
        for each in api.deployments() if name is None else [api.deployment(name)]:
            progress.step(f"asking the indexes for {each['name']}")
            found[each["name"]] = api.outdated(each["id"])
    if as_json:
        output.print_json(found)
        return
    rows = [
        (deployment, package["name"], versions(package["locked"]), versions(package["newest"]))
        for deployment, packages in found.items()
        for package in packages
    ]
    if rows:
        output.print_table(("DEPLOYMENT", "PACKAGE", "LOCKED", "NEWEST"), rows)
        output.note("`bema deploy --upgrade NAME` makes a version with them")
    else:
        output.note("nothing newer is to be had")


def versions(found: list[str]) -> str:
    """The versions of a package, as a person reads them."""
    return ", ".join(found) or "-"
