"""`bema run FILE[:CLASS]`."""

import signal
import subprocess

import pytest

TWO = """
import sys
from bema import async_init, service

@service(namespace="demo")
class One:
    def __init__(self, runtime):
        self.runtime = runtime

    @async_init
    async def tell(self):
        print(type(self).__name__, sys.argv[1:], __file__)
        self.runtime.stop()

@service(namespace="demo")
class Two(One): ...
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "file.py").write_text(text)
        return "file.py"

    return write


def test_the_only_service_runs_until_a_signal(bema, file):
    path = file(
        "from bema import endpoint, service\n"
        "@service(namespace='demo')\n"
        "class Only:\n"
        "    @endpoint()\n"
        "    async def answer(self) -> int: return 42\n"
    )
    process = subprocess.Popen(
        [*bema.command, "run", path], cwd=bema.folder, env=bema.env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "demo.Only is ready" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in said


def test_a_class_is_chosen_by_name(bema, file):
    done = bema("run", file(TWO) + ":Two", "a", "b")
    assert (done.returncode, done.stdout) == (0, "Two ['a', 'b'] file.py\n"), done.stderr


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        (TWO, "", "file.py has 2 services"),
        (TWO, ":Three", "file.py has no service 'Three'"),
        ("x = 1", "", "file.py has 0 services"),
        ("def f(:", "", "file.py, line 1, column 7: invalid syntax"),
        ("1 / 0", "", "file.py failed when it was loaded: ZeroDivisionError"),
        ("from bema import service\n@service(name='a b')\nclass A: ...", "", "service name 'a b' is not a name"),
        (
            "from bema import service\n@service\nclass A:\n    def __init__(self):\n        raise ValueError('no')",
            "",
            "A failed: ValueError: no",
        ),
    ],
)
def test_what_cannot_run_is_said(bema, file, text, target, says):
    done = bema("run", file(text) + target)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr


def test_a_file_that_is_not_there(bema):
    done = bema("run", "nowhere.py")
    assert done.returncode == 1
    assert "nowhere.py: No such file or directory" in done.stderr
