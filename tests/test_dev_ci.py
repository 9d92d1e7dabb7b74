"""What CI runs: with which surroundings, how it counts, and how what `up` prints is tried."""

from __future__ import annotations

import os
import sys
import textwrap

import pytest

from tools import ci, pythons, visit


def test_ci_has_a_plain_path_an_empty_home_and_the_way_to_the_registries(tmp_path):
    given = {
        "PATH": "/opt/tools/bin",
        "HOME": str(tmp_path),
        "CI": "true",
        "PIP_INDEX_URL": "https://pypi.example/simple",
        "BEMA_STATE_DIR": "/state",
        "LANG": "de_DE",
    }
    assert ci.surroundings(given, "/new") == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/new",
        "CI": "true",
        "BEMA_OTHER_PYTHONS": "",
        "PIP_INDEX_URL": "https://pypi.example/simple",
    }


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('9 passed, 9 failed'); print('3 passed, 1 failed'); raise SystemExit(1)", (1, 3, 1)),
        ("print('3 passed, 0 failed')", (0, 3, 0)),
        ("print('killed by the machine'); raise SystemExit(137)", (137, 0, 1)),
    ],
)
def test_the_last_line_of_the_tests_is_what_counts(code, expected, capsys):
    assert ci.counted([sys.executable, "-c", code], os.environ) == expected


@pytest.mark.parametrize(
    ("tested", "bare", "code", "total"),
    [
        ("print('3 passed, 0 failed')", 0, 0, "4 passed, 0 failed"),
        ("print('3 passed, 0 failed')", 3, 1, "3 passed, 1 failed"),
        ("print('3 passed, 2 failed'); raise SystemExit(1)", 0, 1, "4 passed, 2 failed"),
        ("raise SystemExit(1)", 0, 1, "1 passed, 1 failed"),
    ],
)
def test_the_closing_line_adds_both_commands_and_a_machine_that_cannot_be_made_fails(
    tmp_path, capfd, tested, bare, code, total
):
    program = tmp_path / "dev.py"
    program.write_text(
        f"import sys\nif sys.argv[1:] == ['bare', 'up', '--check']: sys.exit({bare})\n"
        f"assert sys.argv[1:] == ['test', '-k', 'name']\n{tested}\n"
    )
    assert ci.ci(program, ["-k", "name"]) == code
    assert capfd.readouterr().out.splitlines()[-1] == total


# the other Pythons


@pytest.fixture
def python(tmp_path):
    def python(folder: str, name: str, says: str, code: int = 0) -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
        path.chmod(0o755)
        return str(path)

    return python


def test_another_python_is_one_that_runs_on_path_or_managed_in_the_home(python, tmp_path):
    python("shims", "python3.12", "pyenv: python3.12: command not found", 127)
    managed = python(".pyenv/versions/3.12.9/bin", "python3.12", "Python 3.12.9")
    on_path = python("bin", "python3.13", "Python 3.13.1")
    python(".pyenv/versions/3.13.0/bin", "python3.13", "Python 3.13.0")
    home = {"PATH": f"{tmp_path / 'shims'}{os.pathsep}{tmp_path / 'bin'}", "HOME": str(tmp_path)}
    assert pythons.other_pythons(home) == {"python3.12": managed, "python3.13": on_path}


def test_where_the_variable_tells_them_nothing_else_is_looked_for(python, tmp_path):
    there = python("bin", "python3.12", "Python 3.12.9")
    told = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "BEMA_OTHER_PYTHONS": ""}
    assert pythons.other_pythons(told) == {}
    assert pythons.other_pythons({**told, "BEMA_OTHER_PYTHONS": f"/nowhere{os.pathsep}{there}"}) == {
        "python3.12": there
    }


# up --check

UP = """\
    import http.server, json, os, sys, threading
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = {{"/docs": (200, b""), "/faas/python": (200, b'{{"items": []}}'), "/page": ({page}, b"")}}
            status, body = known.get(self.path, (404, b""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *words): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{{server.server_port}}"
    print(f'''  gateway  {{here}}
      api      {{here}}
      docs     {{here}}/docs
      token    {{sys.argv[0]}}.token

    try
      A={command} bema ls

    seeds, each told here when it is up: worker

    worker: {state}  {{here}}/page
    '''.replace("\\n    ", "\\n"), flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sys.exit({code})
"""


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, None),
        ({"page": 500}, "/page does not answer"),
        ({"state": "start_failed"}, "a seed is not ready: worker: start_failed"),
        ({"command": "2"}, "`A=2 bema ls` ended with 1"),
        ({"code": 1}, "after Ctrl-C it ended with 1"),
    ],
)
def test_what_up_prints_is_tried_and_what_is_not_so_is_told(tmp_path, monkeypatch, capsys, changed, wrong):
    program = tmp_path / "up"
    text = UP.format(**{"page": 200, "state": "ready", "command": "1", "code": 0, **changed})
    program.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
    program.chmod(0o755)
    (tmp_path / "up.token").write_text("secret\n")
    bema = tmp_path / "bin" / "bema"
    bema.parent.mkdir()
    bema.write_text('#!/bin/sh\n[ "$A" = 1 ]\n')
    bema.chmod(0o755)
    monkeypatch.setattr(visit, "ANSWER", 5.0)
    code = visit.check(["bema", "up"], {**os.environ, "PATH": f"{bema.parent}:/usr/bin:/bin"}, program)
    said = capsys.readouterr().out
    if wrong is None:
        assert code == 0, said
        assert "exit 0  A=1 bema ls" in said
    else:
        assert code == 1
        assert wrong in said
