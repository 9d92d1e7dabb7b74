"""`bema client gen`: from a file and from what runs, checked by a type checker and by calls."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "clients"


@pytest.fixture
def shapes(bema):
    """The service of the data folder, running."""
    process = subprocess.Popen([sys.executable, DATA / "shapes.py"], env=bema.env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "is ready" in process.stderr.readline()
    yield process
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)


def mypy(folder, *files):
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(folder / ".cache")]
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    return subprocess.run([*command, *files], cwd=folder, env=env, text=True, capture_output=True, check=False)


def test_the_client_of_a_file_is_written_with_its_stubs(bema, tmp_path):
    done = bema("client", "gen", str(DATA / "shapes.py"), "--out", "expected.py", "--stubs")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote expected.py\nwrote expected.pyi\n")
    for name in ("expected.py", "expected.pyi"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_without_a_file_to_write_it_goes_to_stdout(bema):
    module = bema("client", "gen", f"{DATA / 'shapes.py'}:Shapes")
    stubs = bema("client", "gen", str(DATA / "shapes.py"), "--stubs")
    assert module.stdout == (DATA / "expected.py").read_text()
    assert stubs.stdout == (DATA / "expected.pyi").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("stubs", [False, True], ids=["module", "stubs"])
def test_it_is_strictly_typed_and_its_callers_mistakes_are_found(tmp_path, stubs):
    for name in ("expected.py", "caller.py", *(["expected.pyi"] if stubs else [])):
        shutil.copy(DATA / name, tmp_path)
    done = mypy(tmp_path, "caller.py", *([] if stubs else ["expected.py"]))
    assert done.returncode == 0, done.stdout
    caller = (tmp_path / "caller.py").read_text()
    (tmp_path / "caller.py").write_text(caller.replace('shapes.shout("quietly")', "shapes.shout(1)"))
    assert 'Argument 1 to "shout" of "AllShapes" has incompatible type "int"' in mypy(tmp_path, "caller.py").stdout


def test_it_calls_the_running_service_and_needs_nothing_but_bema(bema, shapes, tmp_path):
    for name in ("expected.py", "caller.py"):
        shutil.copy(DATA / name, tmp_path)
    hidden = "import runpy, sys; sys.modules['pydantic'] = None; sys.path.insert(0, '.'); runpy.run_path('caller.py')"
    done = subprocess.run(
        [sys.executable, "-c", hidden], cwd=tmp_path, env=bema.env, text=True, capture_output=True, check=False
    )
    assert (done.stdout, done.stderr) == ("every endpoint answered\n", "")


def test_a_running_service_tells_its_names_and_shapes(bema, shapes, tmp_path):
    done = bema("client", "gen", "clients.all-shapes", "--out", "told.py")
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "told.py").read_text()
    assert "def words(self, text: str, every: int = 1) -> AsyncIterator[str]: ..." in made
    (tmp_path / "calls.py").write_text(
        "import asyncio, bema\nfrom told import AllShapes\n"
        "async def main() -> None:\n"
        "    async with bema.connect() as runtime:\n"
        "        shapes = runtime.client(AllShapes)\n"
        "        print(await shapes.shout('a'), [word async for word in shapes.words('b c')])\n"
        "asyncio.run(main())\n"
    )
    called = subprocess.run(
        [sys.executable, "calls.py"], cwd=tmp_path, env=bema.env, text=True, capture_output=True, check=False
    )
    assert (called.stdout, called.stderr) == ("A ['b', 'c']\n", "")


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("nowhere.py", 1, "nowhere.py: No such file or directory"),
        ("demo.nobody", 3, "no instance of demo.nobody is there"),
        ("demo.nobody.endpoint", 1, "is neither a file nor namespace.component"),
        ("nowhere", 1, "is neither a file nor namespace.component"),
        ("1.2", 1, "namespace '1' is not a name"),
    ],
)
def test_what_no_client_can_be_made_of_is_said(bema, target, code, says):
    done = bema("client", "gen", target)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_file_that_cannot_be_written_is_named(bema):
    done = bema("client", "gen", str(DATA / "shapes.py"), "--out", "no/where.py")
    assert done.returncode == 1
    assert "no/where.py cannot be written: No such file or directory" in done.stderr
