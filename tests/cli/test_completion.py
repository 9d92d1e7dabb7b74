"""`bema completion`, and the completing itself as a shell asks for it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bema.cli import COMMANDS


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script_on_stdout_and_the_hint_on_stderr(bema, shell):
    done = bema("completion", shell)
    assert done.returncode == 0
    assert "_BEMA_COMPLETE" in done.stdout
    assert f"bema completion {shell}" in done.stderr


def test_bash_takes_the_script(bema):
    bash = shutil.which("bash")
    assert bash, "the tests need bash"
    done = subprocess.run([bash, "-n"], input=bema("completion", "bash").stdout, text=True, check=False)
    assert done.returncode == 0


def complete(bema, words, number):
    done = bema(_BEMA_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number))
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_and_options_are_completed(bema):
    assert complete(bema, "bema ", 1) == list(COMMANDS)
    assert complete(bema, "bema exp", 1) == ["explain"]
    assert "--json" in complete(bema, "bema explain --", 2)
    assert complete(bema, "bema completion ", 2) == ["bash", "zsh", "fish"]


def test_another_shell_is_refused(bema):
    done = bema("completion", "tcsh")
    assert done.returncode == 1
    assert done.stderr.startswith("error usage: Invalid value")
