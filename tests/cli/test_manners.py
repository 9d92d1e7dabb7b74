"""How every command behaves: help that costs nothing, exit codes, pipes, colour, the table of commands."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import click
import pytest

from bema.cli import COMMANDS, cli
from bema.core.version import VERSION


def loaded(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_table_is_the_first_line_of_the_commands_help(name):
    assert (loaded(name).help or "").splitlines()[0] == COMMANDS[name].help


def leaves(command, path=()):
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield " ".join(path), command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_says_what_it_is_for(name):
    for path, command in leaves(loaded(name), (name,)):
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"bema {path} {parameter.opts}"


def test_help_names_every_command_and_loads_none(bema):
    done = bema("--help")
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    script = "import sys; from bema.cli import main; main(['--help']); print([m for m in sys.modules if m.startswith('bema')])"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for row in COMMANDS.values():
        assert f"'{row.target.partition(':')[0]}'" not in printed


def best(command, env):
    """Processor seconds of a whole process, the least of five: what others do on the machine does not count."""

    def once():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    return min(once() for _ in range(5))


def test_the_version_is_told_within_100_ms_of_a_bare_python(bema, bema_command):
    assert bema("--version").stdout == f"bema {VERSION}\n"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    assert best([*bema_command, "--version"], env) - best([bema_command[0], "-c", ""], env) < 0.1


@pytest.mark.parametrize("name", [[], *([name] for name in COMMANDS if isinstance(loaded(name), click.Group))])
def test_a_group_that_is_named_alone_prints_its_help(bema, name):
    done = bema(*name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == bema(*name, "--help").stdout


def test_an_unknown_command_is_the_users_fault_and_has_a_remedy(bema):
    done = bema("depoly")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error usage: No such command 'depoly'.\n  fix: `bema --help` shows what it takes.\n  more: bema explain usage\n"
    )


WITHOUT_FCNTL = (
    "import sys; sys.modules['fcntl'] = None; import bema; from bema.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("name", ["up", "doctor", "ls"])
def test_a_system_without_locks_is_refused_in_a_sentence(name):
    done = subprocess.run([sys.executable, "-c", WITHOUT_FCNTL, name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error not_supported: `bema {name}` needs fcntl")
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_answered_in_json_where_json_was_asked_for(bema):
    done = bema("explain", "--json", "--nope")
    assert done.returncode == 1
    assert done.stderr.startswith('{"error":{"code":"usage"')


def test_a_reader_that_has_enough_is_no_failure(bema):
    line = f"{' '.join(bema.command)} explain --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=bema.env, check=False)
    assert done.stdout == "[\n0\n"
    assert done.stderr == ""


def on_a_terminal(bema, *arguments, **env):
    """What a command writes to a terminal, as bytes."""
    ours, theirs = pty.openpty()
    environment = {**bema.env, "TERM": "xterm", **env}
    child = subprocess.Popen([*bema.command, *arguments], env=environment, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # the terminal's other end is closed
        pass
    child.wait()
    os.close(ours)
    return written


def test_colour_is_for_terminals_whose_user_wants_it(bema):
    bema.env.pop("NO_COLOR", None)
    assert b"\x1b[" in on_a_terminal(bema, "explain")
    assert b"\x1b[" not in on_a_terminal(bema, "explain", NO_COLOR="1")
    assert "\x1b[" not in bema("explain").stdout
    assert b"\x1b[31merror" in on_a_terminal(bema, "explain", "nope")


def test_python_dash_m_and_the_script_are_one_command(bema):
    script = os.path.join(os.path.dirname(bema.command[0]), "bema")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == bema("--version").stdout
