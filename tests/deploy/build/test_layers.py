"""The platform layer: what bema brings to a script, after all that the script brought itself."""

import asyncio
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from bema.core.errors import Refused
from bema.deploy.build import layers
from bema.deploy.build.layers import Layers
from bema.deploy.build.pythons import Python, own_python
from bema.deploy.build.uv import Uv
from tests.runner.calling import TOKEN, calling
from tests.runner.conftest import Launch


def made(folder: Path, python: Python | None = None) -> Path:
    return asyncio.run(Layers(folder, Uv()).layer(python or own_python()))


def output(python: str, code: str, *appended: Path) -> str:
    paths = "".join(f"sys.path.append({str(path)!r});" for path in appended)
    done = subprocess.run([python, "-I", "-c", f"import sys;{paths}{code}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("layers"))


def test_the_bare_interpreter_finds_bema_and_the_server_in_it(layer: Path):
    code = "import bema.core.errors, msgspec, click, uvicorn, h11; print(bema.core.errors.__file__, msgspec.__file__)"
    shown = output(own_python().path, code, layer)
    assert [Path(p).is_relative_to(layer) for p in shown.split()] == [True, True]


def test_it_holds_neither_tests_nor_scripts_nor_links(layer: Path):
    names = {path.name for path in layer.iterdir()}
    assert {"bema", "msgspec", "click", "uvicorn", "h11"} <= names
    assert "bin" not in names
    assert not [path for path in layer.rglob("*") if path.is_symlink() or path.suffix == ".pth"]


def test_what_the_script_brought_wins(layer: Path, tmp_path: Path):
    (tmp_path / "h11.py").write_text("whose = 'the user'")
    assert output(own_python().path, "import h11; print(h11.whose)", tmp_path, layer) == "the user"


def test_it_is_compiled_and_its_tracebacks_name_files_that_are_there(layer: Path):
    compiled = list(layer.rglob("*.pyc"))
    assert any(path.name.startswith("errors.") for path in compiled)
    code = "import bema.core.errors as e; print(e.BemaError.__init__.__code__.co_filename)"
    assert Path(output(own_python().path, code, layer)).is_file()


def test_equal_content_is_one_layer_and_another_content_another(
    layer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    before = layer.stat().st_ino
    assert made(layer.parent) == layer
    assert layer.stat().st_ino == before
    checkout = tmp_path / "bema"
    shutil.copytree(layer / "bema", checkout, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "more.py").write_text("")
    monkeypatch.setattr(layers, "_BEMA", checkout)
    other = made(layer.parent)
    assert other != layer
    assert (other / "bema" / "more.py").exists()


def test_two_makers_make_one(tmp_path: Path):
    async def story() -> set[Path]:
        return set(await asyncio.gather(*(Layers(tmp_path, Uv()).layer(own_python()) for _ in range(2))))

    (place,) = asyncio.run(story())
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [place]


def test_another_python_gets_its_own_compiled_parts(tmp_path: Path):
    minor = sys.version_info.minor
    others = [shutil.which(f"python3.{n}") for n in range(minor + 1, minor + 4)]
    found = [p for p in others if p and subprocess.run([p, "-c", ""], capture_output=True).returncode == 0]
    if not found:
        pytest.skip("there is no newer Python on this machine")
    path = output(found[0], "print(sys.executable)")
    release = tuple(map(int, output(path, "print(*sys.version_info[:3])").split()))
    place = made(tmp_path, Python(path, release))
    assert output(path, "import bema.core.errors, msgspec, uvicorn; print(msgspec.json.encode(1))", place) == "b'1'"


def test_a_missing_part_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(layers, "NEEDED", ("msgspec", "bema-has-no-such-part"))
    with pytest.raises(Refused, match=r"bema-has-no-such-part: install bema\[platform\]"):
        made(tmp_path)


EXTENSION = "[bema.extensions]\ntally = bema.tally:TallyExtension\n"
TALLY = """
from bema.sdk.extensions import Bound

class TallyExtension:
    async def open(self, context, spec):
        return Bound(interceptors={"counted": lambda handler: self.counted})

    async def counted(self, call):
        return "counted"

    async def close(self): ...
"""
SCRIPT = """
from bema import endpoint, service

@service(name="counter", namespace="demo")
class Counter:
    @endpoint(extra={"tally": {}})
    async def counted(self) -> str:
        return "by itself"
"""


def test_an_extension_that_bema_names_by_entry_point_is_found_in_a_deployed_script(
    layer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    checkout = tmp_path / "checkout" / "bema"
    shutil.copytree(layer / "bema", checkout, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "tally.py").write_text(TALLY)
    (checkout.parent / "pyproject.toml").write_text(
        '[project.entry-points."bema.extensions"]\ntally = "bema.tally:TallyExtension"\n'
    )
    monkeypatch.setattr(layers, "_BEMA", checkout)
    monkeypatch.setattr(layers, "distribution", not_as_bema)
    place = made(tmp_path / "layers")
    assert (next(place.glob("bema-*.dist-info")) / "entry_points.txt").read_text() == EXTENSION

    monkeypatch.setattr(sys, "executable", own_python().path)  # an interpreter that has no bema of its own
    launch = Launch(tmp_path)
    running = launch(SCRIPT, "service", "Counter", auth_token=TOKEN, platform=str(place))
    running.start()
    said = running.hear()
    try:
        assert asyncio.run(answer_of(said)) == "counted"
        assert running.stop() == 0
    finally:
        launch.close()


def not_as_bema(name: str) -> Distribution:
    """What is installed, except that bema runs from a checkout."""
    if name == "bema":
        raise PackageNotFoundError(name)
    return distribution(name)


async def answer_of(said: dict[str, Any]) -> Any:
    async with calling(said, "counted") as caller:
        return await caller.client("counted").unary({}, timeout=10)


def test_a_layer_says_of_bema_what_its_distribution_says(layer: Path):
    [folder] = layer.glob("bema-*.dist-info")
    assert (folder / "entry_points.txt").read_text() == (distribution("bema").read_text("entry_points.txt") or "")
    shown = output(own_python().path, "import importlib.metadata as m; print(m.version('bema'))", layer)
    assert shown == distribution("bema").version
