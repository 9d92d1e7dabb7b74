"""Which interpreter a script runs on."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bema.core.errors import Failed, Invalid
from bema.deploy.build.pythons import FoundPythons, Python, own_python
from bema.deploy.build.uv import Uv


class TellingUv(Uv):
    """A uv that says what a machine would make it say."""

    def __init__(self, find: str = "", version: str = "", listed: str = "[]") -> None:
        super().__init__("no binary")
        self.answers = {"--show-version": version, "find": find, "list": listed}
        self.asked: list[str] = []

    async def run(self, *arguments: str, **how: object) -> str:
        verb = next(key for key in self.answers if key in arguments)
        self.asked.append(verb)
        if not self.answers[verb]:
            raise Failed("none found", code="build_failed")
        return self.answers[verb]


def choose(uv: Uv, *requires: str) -> list[Python]:
    async def story() -> list[Python]:
        pythons = FoundPythons(uv)
        return [await pythons.choose(text) for text in requires]

    return asyncio.run(story())


def test_our_own_is_taken_without_looking_whenever_it_fits():
    uv = TellingUv()
    version = own_python().version
    assert choose(uv, "", ">=3.11", f"=={version}") == [own_python()] * 3
    assert uv.asked == []


def test_our_own_is_the_one_below_our_environment():
    python = own_python()
    told = subprocess.run(
        [python.path, "-I", "-c", "import sys; print(sys.prefix == sys.base_prefix)"], capture_output=True
    )
    assert told.stdout.strip() == b"True"
    assert python.release == sys.version_info[:3]


def test_the_first_that_uv_finds_is_remembered_while_it_is_there(tmp_path: Path):
    found = tmp_path / "python"
    found.touch(mode=0o755)
    uv = TellingUv(f"{found}\n", "3.98.1\n")
    assert choose(uv, ">=3.98", ">=3.98") == [Python(str(found), (3, 98, 1))] * 2
    assert uv.asked == ["find", "--show-version"]


def test_what_cannot_hold_our_part_is_not_chosen_and_those_there_are_are_listed():
    row = """{"path": "/p/%s", "version_parts": {"major": 3, "minor": %s, "patch": 0}, "implementation": "%s"}"""
    listed = "[" + ",".join((row % ("a", 9, "cpython"), row % ("b", 97, "cpython"), row % ("c", 98, "pypy"))) + "]"
    uv = TellingUv("/p/a\n", "3.9.0\n", listed)
    with pytest.raises(Invalid) as caught:
        choose(uv, "<3.10")
    assert caught.value.code == "python_unavailable"
    assert caught.value.details["available"] == [own_python().version, "3.97.0"]
    assert choose(uv, ">=3.97") == [Python("/p/b", (3, 97, 0))]


def test_a_machine_with_another_python_gives_it():
    minor = sys.version_info.minor
    others = [p for n in range(minor + 1, minor + 4) if (p := shutil.which(f"python3.{n}"))]
    if not any(subprocess.run([p, "-c", ""], capture_output=True, check=False).returncode == 0 for p in others):
        pytest.skip("there is no newer Python on this machine")
    (python,) = choose(Uv(), f">3.{minor}.999")
    assert python.release > own_python().release
