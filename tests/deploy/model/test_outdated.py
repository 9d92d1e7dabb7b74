"""Which packages of a lock have newer versions, and the newest lock, from the real index."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import msgspec
import pytest

from bema.core.errors import Failed
from bema.deploy.build.environments import UvEnvironments
from bema.deploy.build.uv import Uv
from bema.deploy.model.outdated import OutdatedPackage, outdated
from tests.deploy.build.test_environments import script


def lock(**versions: str) -> str:
    packages = (
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n'
        for name, each in versions.items()
        for version in each.split()
    )
    return "version = 1\n" + "".join(packages)


def test_what_differs_is_told_by_name():
    found = outdated(lock(six="1.16.0", idna="3.4", old="1"), lock(six="1.17.0", idna="3.4", new="2"))
    assert found == [
        OutdatedPackage("new", (), ("2",)),
        OutdatedPackage("old", ("1",), ()),
        OutdatedPackage("six", ("1.16.0",), ("1.17.0",)),
    ]


def test_a_package_of_two_versions_is_told_with_both():
    assert outdated(lock(numpy="1.26 2.0"), lock(numpy="2.1 1.26")) == [
        OutdatedPackage("numpy", ("1.26", "2.0"), ("1.26", "2.1"))
    ]


def test_what_is_local_has_no_newer_version():
    assert outdated('[[package]]\nname = "mine"\n', '[[package]]\nname = "mine"\n') == []


@pytest.mark.parametrize("text", ["[", "package = 1", "package = [1]", '[[package]]\nversion = "1"\n'])
def test_a_lock_that_cannot_be_read_is_an_error(text):
    with pytest.raises(Failed, match="cannot be read"):
        outdated(text, lock())


def test_the_newest_lock_is_made_whatever_lock_there_is_and_installs_nothing(tmp_path: Path):
    environments = UvEnvironments(tmp_path, Uv())

    async def story() -> tuple[str, str, str]:
        pinned = await environments.newest_lock(script("six==1.16.0"))
        kept = msgspec.structs.replace(script("six"), lock=pinned)
        return pinned, await environments.newest_lock(kept), await environments.newest_lock(script())

    pinned, newest, none = asyncio.run(story())
    (found,) = outdated(pinned, newest)
    assert (found.name, found.locked) == ("six", ("1.16.0",))
    assert found.newest > ("1.16.0",)
    assert [package["name"] for package in tomllib.loads(newest)["package"]] == ["six"]
    assert none == ""
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
