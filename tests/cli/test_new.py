"""`bema new`: what is written works as it is."""

import os
import signal
import subprocess
import sys

import pytest

from bema.cli.new import TEMPLATES
from bema.deploy.sources import entry


def test_a_new_service_is_reloaded_and_called_by_the_lines_it_prints(bema):
    done = bema("new", "my-greeter")
    assert (done.returncode, done.stdout) == (0, "")
    head, dev, call = (line.strip() for line in done.stderr.splitlines())
    assert head == "wrote my_greeter.py; next"
    process = subprocess.Popen(
        [*bema.command, *dev.split()[1:]], cwd=bema.folder, env=bema.env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "default.my-greeter is ready" in process.stderr.readline()
    assert bema(*call.split()[1:]).stdout == "hello ada\n"
    assert bema("call", "default.my-greeter.count", "to=2", "--stream").stdout == "1\n2\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize(("template", "kind"), [("service", "service"), ("api", "app"), ("tools", "mcp")])
def test_every_template_can_be_deployed_is_typed_and_stays_as_it_is_formatted(bema, tmp_path, template, kind):
    assert bema("new", "first", "--template", template).returncode == 0
    file = tmp_path / "first.py"
    assert entry.inspect(file.read_bytes())["kind"] == kind
    for command in (("ruff", "format", "--isolated", "--check"), ("mypy", "--strict", "--config-file", "")):
        checked = subprocess.run(
            [sys.executable, "-m", *command, str(file)],
            env={**os.environ, "MYPY_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
    subprocess.run([sys.executable, "-c", "import first"], cwd=tmp_path, check=True)


def test_nothing_is_overwritten_and_names_are_names(bema, tmp_path):
    (tmp_path / "first.py").write_text("mine")
    done = bema("new", "first")
    assert (done.returncode, (tmp_path / "first.py").read_text()) == (1, "mine")
    assert "first.py is there already" in done.stderr
    assert "is not a name" in bema("new", "no name").stderr
    assert set(TEMPLATES) == {"service", "api", "tools"}
