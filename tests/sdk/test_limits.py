"""A service goes by the limits of its settings, started by hand or by a launcher."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bema.wire.module.handshake import Init, encode

SERVICE = """
import asyncio, json, sys
import msgspec
from bema import service, Context

@service(name="told", namespace="demo")
class Told:
    def __init__(self, context: Context):
        sys.stdout.write(json.dumps(msgspec.structs.asdict(context.runtime.limits)))
        raise SystemExit(0)

asyncio.run(Told.start())
"""


def started(folder: Path, passed: tuple[int, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SERVICE],
        cwd=folder,
        env={**os.environ, "BEMA_STATE_DIR": str(folder / "state"), **env},
        pass_fds=passed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_service_by_hand_goes_by_its_variables_and_its_files(tmp_path):
    (tmp_path / "bema.toml").write_text("[limits]\ndrain = 7\nstalled = 3\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n[tool.bema.limits]\nrpc_calls = 9\n')
    held = json.loads(started(tmp_path, BEMA_LIMITS__RPC_MESSAGE="5000", BEMA_LIMITS__STALLED="2").stdout)
    assert (held["drain"], held["stalled"], held["rpc_calls"], held["rpc_message"]) == (7.0, 2.0, 9, 5000)


def test_what_its_launcher_says_is_nearer(tmp_path):
    outside, inside = socket.socketpair()
    with outside, inside:
        outside.sendall(
            encode(Init(orchestrator_api="", module_id="m", env={}, listen="", settings={"limits.drain": 4.0}))
        )
        number = inside.fileno()
        done = started(tmp_path, (number,), BEMA_CHANNEL=str(number), BEMA_LIMITS__DRAIN="7", BEMA_LIMITS__STALLED="2")
    held = json.loads(done.stdout)
    assert (held["drain"], held["stalled"]) == (4.0, 2.0), done.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "BEMA_LIMITS__DRIAN",
            "1",
            "no setting for the variable BEMA_LIMITS__DRIAN; did you mean 'BEMA_LIMITS__DRAIN'?",
        ),
        ("BEMA_LIMIT__DRAIN", "1", "no setting for the variable BEMA_LIMIT__DRAIN; did you mean 'BEMA_LIMITS__DRAIN'?"),
        ("BEMA_LIMITS__DRAIN", "-3", "limits.drain: '-3' is not at least 0.001 and at most 31536000 (from variable"),
        ("BEMA_LIMITS__RPC_CALLS", "many", "limits.rpc_calls: 'many' is not a whole number (from variable"),
    ],
)
def test_a_setting_that_does_not_fit_ends_it_in_a_sentence(tmp_path, name, value, sentence):
    done = started(tmp_path, **{name: value})
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
