"""Environments, made by the real uv from the real index."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bema.core.errors import Failed, Refused
from bema.deploy.build.environments import Made, UvEnvironments, Wanted, key_of
from bema.deploy.build.folders import MARKER, exclusive, link_mode
from bema.deploy.build.pythons import Python, own_python
from bema.deploy.build.uv import Uv, masked
from bema.deploy.build.variables import build_variables


def script(*dependencies: str, body: str = "") -> Wanted:
    listed = ", ".join(f'"{d}"' for d in dependencies)
    code = f"# /// script\n# dependencies = [{listed}]\n# ///\n{body}"
    return Wanted(code.encode(), dependencies, own_python())


def make(folder: Path, *wanted: Wanted) -> list[Made]:
    async def story() -> list[Made]:
        environments = UvEnvironments(folder, Uv())
        return await asyncio.gather(*(environments.make(w) for w in wanted))

    return asyncio.run(story())


def output(made: Made, code: str) -> str:
    return subprocess.run([made.python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_script_without_dependencies_needs_no_environment(tmp_path: Path):
    assert make(tmp_path / "e", script()) == [Made(own_python().path)]
    assert not (tmp_path / "e").exists()


def test_what_was_asked_for_can_be_imported_from_a_compiled_private_copy(tmp_path: Path):
    (made,) = make(tmp_path, script("six"))
    place = tmp_path / made.key
    assert output(made, "import six; print(six.__file__)").startswith(str(place))
    assert 'name = "six"' in made.lock
    assert set(made.phases) == {"lock", "install"}
    files = [f for f in place.rglob("*") if f.is_file() and not f.is_symlink()]
    assert any(f.name.startswith("six.") and f.suffix == ".pyc" for f in files)
    assert [f for f in files if f.stat().st_nlink > 1] == []


def test_equal_locks_share_one_environment_made_once(tmp_path: Path):
    first, second, other = make(
        tmp_path, script("idna", body="x = 1"), script("idna", body="x = 2"), script("idna", "six")
    )
    assert first.key == second.key != other.key
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {first.key, other.key}
    made_at = (tmp_path / first.key / MARKER).stat().st_mtime_ns
    (again,) = make(tmp_path, script("idna", body="x = 3"))
    assert again.key == first.key
    assert (tmp_path / first.key / MARKER).stat().st_mtime_ns == made_at


def test_a_lock_is_installed_not_resolved_again(tmp_path: Path):
    (old,) = make(tmp_path / "a", script("idna<3.7"))
    wanted = script("idna<3.7")
    (again,) = make(tmp_path / "b", Wanted(wanted.code, wanted.dependencies, wanted.python, old.lock))
    assert (again.key, again.lock) == (old.key, old.lock)


def test_a_half_built_environment_is_built_anew(tmp_path: Path):
    (made,) = make(tmp_path, script("six"))
    place = tmp_path / made.key
    (place / MARKER).unlink()
    next(place.rglob("six.py")).write_text("raise SystemExit('half')")
    (place / "bin" / "python").unlink()
    make(tmp_path, script("six"))
    assert output(made, "import six; print('whole')") == "whole"


def test_a_builder_waits_for_the_one_before_it(tmp_path: Path):
    async def story() -> None:
        (made,) = await asyncio.gather(UvEnvironments(tmp_path, Uv()).make(script("six")))
        (tmp_path / made.key / MARKER).unlink()
        async with exclusive(tmp_path / f"{made.key}.lock"):
            second = asyncio.create_task(UvEnvironments(tmp_path, Uv()).make(script("six")))
            done, _ = await asyncio.wait([second], timeout=0.7)
            assert not done
            (tmp_path / made.key / MARKER).touch()
        assert (await second).key == made.key

    asyncio.run(story())


def test_a_package_that_does_not_exist_fails_with_the_resolvers_text(tmp_path: Path):
    with pytest.raises(Failed) as caught:
        make(tmp_path, script("bema-has-no-such-package"))
    error = caught.value
    assert error.code == "build_failed"
    assert "bema-has-no-such-package was not found" in error.message
    assert "bema-has-no-such-package was not found" in error.details["detail"]
    assert list(tmp_path.iterdir()) == []


def test_a_conflict_and_a_bad_requirement_fail_too(tmp_path: Path):
    for dependencies in (("six<1.10", "six>1.15"), ("six >>> 1",)):
        with pytest.raises(Failed) as caught:
            make(tmp_path, script(*dependencies))
        assert "six" in caught.value.details["detail"]
        assert len(caught.value.message) > len("TOML parse error at line 1, column 17")


@pytest.mark.parametrize(
    ("dependency", "reason"),
    [
        ("lib @ ./lib", "relative path without a working directory: ./lib"),
        ("six >>> 1", "no such comparison operator"),
    ],
)
def test_what_is_wrong_with_a_requirement_is_said(tmp_path: Path, dependency: str, reason: str):
    with pytest.raises(Failed) as caught:
        make(tmp_path, script(dependency))
    assert reason in caught.value.message


def test_a_build_has_a_deadline(tmp_path: Path):
    slow = tmp_path / "uv"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(Failed, match="took longer"):
        asyncio.run(UvEnvironments(tmp_path / "e", Uv(str(slow)), timeout=1).make(script("six")))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_key_is_what_is_inside(tmp_path: Path):
    python = own_python()
    key = key_of("six==1", python)
    assert key == key_of("six==1", python)
    assert len({key, key_of("six==2", python), key_of("six==1", Python("/other", python.release))}) == 3
    assert link_mode(tmp_path) in ("clone", "copy")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://user:secret@index.test/simple", "at https://****@index.test/simple"),
        ("git+https://token@host/x and http://a:b@c", "git+https://****@host/x and http://****@c"),
        ("https://index.test/a@b", "https://index.test/a@b"),
    ],
)
def test_credentials_are_masked(text: str, shown: str):
    assert masked(text) == shown


def test_uv_is_told_nothing_of_our_own_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "automatic")
    environment = build_variables(os.environ)
    assert "VIRTUAL_ENV" not in environment
    assert "PYTHONPATH" not in environment
    assert environment["UV_PYTHON_DOWNLOADS"] == "never"


def test_without_uv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(Refused, match=r"bema\[platform\]"):
        _ = Uv().binary
