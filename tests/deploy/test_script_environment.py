"""`bema run` and `bema dev` of a file with a PEP 723 block: what it asks for is there. The real uv, the real index."""

import signal
import subprocess
import sys

import pytest

from bema.core.version import VERSION
from bema.deploy.script_environment import fits
from bema.deploy.sources.pep723 import ScriptMetadata

SERVICE = """\
# /// script
# requires-python = ">=3.11"
# dependencies = ["six==1.16.0"]
# ///
import sys

import six
from bema import endpoint, service

@service(name="six", namespace="shop")
class Six:
    @endpoint()
    async def told(self) -> list[str]:
        return [six.__version__, sys.prefix, *sys.argv[1:]]
"""


def started(bema, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*bema.command, *arguments], cwd=bema.folder, env=bema.env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "is ready" not in (line := process.stderr.readline()):
        assert line, process.wait()
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "dev"])
def test_a_file_runs_with_what_its_block_asks_for(bema, verb: str):
    (bema.folder / "service.py").write_text(SERVICE)
    process = started(bema, verb, "service.py", "one", "two")
    told = bema("call", "shop.six.told", "--json").stdout
    assert '"1.16.0"' in told
    assert '"one",\n  "two"' in told
    assert str(bema.folder / "state" / "environments") in told
    ended(process)

    # edited below its block, and without a network: the lock is kept
    (bema.folder / "service.py").write_text(SERVICE + "\n# edited\n")
    bema.env["UV_OFFLINE"] = "1"
    ended(started(bema, verb, "service.py"))
    assert len(list((bema.folder / "state" / "scripts").iterdir())) == 1


@pytest.mark.slow
def test_a_client_is_written_of_such_a_file_too(bema):
    (bema.folder / "service.py").write_text(SERVICE)
    done = bema("client", "gen", "service.py", "--out", "made.py")
    assert done.returncode == 0, done.stderr
    assert "told" in (bema.folder / "made.py").read_text()


def test_what_cannot_be_installed_is_said_with_the_resolvers_words(bema):
    bema.env["UV_OFFLINE"] = "1"
    (bema.folder / "service.py").write_text(SERVICE.replace("six==1.16.0", "no-such-package-of-ours"))
    done = bema("run", "service.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error build_failed: " in done.stderr
    assert "no-such-package-of-ours" in done.stderr
    assert "--here" in done.stderr
    assert "Traceback" not in done.stderr


def test_here_runs_it_as_it_is(bema):
    (bema.folder / "service.py").write_text(SERVICE.replace("import six\n", "import no_such_module\n"))
    done = bema("run", "--here", "service.py")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
    assert not (bema.folder / "state" / "environments").exists()


def test_a_block_that_is_malformed_is_refused_with_its_line(bema):
    (bema.folder / "service.py").write_text("# /// script\n# x =\n# ///\n")
    done = bema("run", "service.py")
    assert done.returncode == 1
    assert done.stderr.startswith("error pep723_malformed: line 2")


@pytest.mark.parametrize(
    ("metadata", "here"),
    [
        (ScriptMetadata(), True),
        (ScriptMetadata(("msgspec", "click>=8", f"bema=={VERSION}")), True),
        (ScriptMetadata(("msgspec<0.1",)), False),
        (ScriptMetadata(("no-such-package",)), False),
        (ScriptMetadata(("msgspec[yaml]",)), False),
        (ScriptMetadata(("msgspec @ https://example.test/m.whl",)), False),
        (ScriptMetadata(("msgspec; python_version < '3'",)), False),
        (ScriptMetadata((), f">={sys.version_info[0]}.{sys.version_info[1]}"), True),
        (ScriptMetadata((), "<3.11"), False),
    ],
)
def test_what_is_installed_here_needs_no_environment(metadata: ScriptMetadata, here: bool):
    assert fits(metadata) is here


@pytest.mark.parametrize(
    ("code", "what", "how"),
    [
        ("app = 1\n", "it holds an app, 'app'", "`uvicorn file:app`"),
        ("from mcp import Server\nmcp = Server('x')\n", "it holds an MCP server, 'mcp'", "`python3 file.py`"),
        ("print('hello')\n", "it is a program", "`python3 file.py`"),
    ],
)
def test_a_file_without_a_service_is_told_as_what_it_is(bema, code: str, what: str, how: str):
    (bema.folder / "file.py").write_text(code)
    (bema.folder / "mcp.py").write_text("class Server:\n    def __init__(self, name): ...\n")
    done = bema("run", "file.py")
    assert done.returncode == 1
    assert f"error entry_not_found: file.py has 0 services: {what}" in done.stderr
    assert "`bema deploy file.py` serves it" in done.stderr
    assert how in done.stderr
