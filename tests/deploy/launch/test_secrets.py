"""A secret on its way to a real process: in its environment, and in nothing that others see of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bema.deploy.launch.launcher import Announced, Exited
from tests.deploy.keeper.conftest import Platform, platform
from tests.deploy.launch.test_process import PROGRAM, Stage, told

__all__ = ["platform"]

SECRET = "s3cr3t-of-this-test"
SEEN = """
import json, os, sys
from pathlib import Path
print("the token is", os.environ["TOKEN"])
print(json.dumps({{"event": "failed with " + os.environ["TOKEN"], "level": "error"}}), file=sys.stderr)
Path({where!r}).write_text(json.dumps({{
    "TOKEN": os.environ.get("TOKEN"), "own": Path("/proc/self/environ").read_bytes().decode("latin-1"),
    "open": [os.readlink(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{n}}")],
}}))
"""
APP = "async def app(scope, receive, send): ...\n"


@pytest.mark.parametrize(
    ("kind", "rest"),
    [("app", APP), ("main", PROGRAM.replace("WISH", "None")), ("app", PROGRAM.replace("WISH", "None"))],
)
def test_a_script_finds_its_secret_in_its_environment(platform: Platform, kind: str, rest: str):
    """Also the third, an app by its looks that turns out to be a program and is run again."""

    async def story(stage: Stage) -> None:
        where = platform.folder / "seen.json"
        workload = stage.given(
            SEEN.format(where=str(where)) + rest, kind, env={"TOKEN": "plain"}, secrets={"TOKEN": SECRET}
        )
        replica = await stage.start(workload)
        assert isinstance(await stage.event(), Announced)
        seen: dict[str, Any] = json.loads(where.read_text())
        assert seen["TOKEN"] == SECRET
        # not what other programs of this user read of it, nor a descriptor that what it starts would have
        assert SECRET not in seen["own"]
        assert not [name for name in seen["open"] if "memfd:secrets" in name]
        assert SECRET.encode() not in Path(f"/proc/{replica.pid}/environ").read_bytes()
        kept = await stage.launcher._keeper.request("list")
        assert SECRET not in json.dumps(kept)
        logs = [path.read_text() for path in (platform.folder).rglob("*.ndjson")]
        assert any("the token is [secret]" in log for log in logs)
        assert any("failed with [secret]" in log for log in logs)
        assert not any(SECRET in log for log in logs)
        await stage.launcher.stop(replica.instance, 0, "over")
        assert isinstance(await stage.event(), Exited)

    told(platform, story)
