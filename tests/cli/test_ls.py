"""`bema ls`: what there is."""

import json
import subprocess
import sys

import pytest

from bema.cli import ls
from bema.core.instance import Instance, State


def test_nothing_is_said_on_stderr_and_as_empty_lists(bema):
    done = bema("ls")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing runs" in done.stderr
    assert json.loads(bema("ls", "--json").stdout) == {"deployments": [], "instances": []}


def test_an_instance_is_listed_without_its_token(bema, tmp_path):
    (tmp_path / "worker.py").write_text(
        "import asyncio\n"
        "from bema import endpoint, service\n"
        "@service(name='worker', namespace='demo')\n"
        "class Worker:\n"
        "    @endpoint()\n"
        "    async def generate(self, text: str) -> str:\n"
        "        return text\n"
        "asyncio.run(Worker.start())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "worker.py"], cwd=tmp_path, env=bema.env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "ready" in process.stderr.readline()
    (found,) = json.loads(bema("ls", "--json").stdout)["instances"]
    assert (found["address"], found["state"], found["pid"]) == ("demo.worker", "serving", process.pid)
    assert found["endpoints"] == [{"name": "generate", "shape": "unary", "parameters": ["text"]}]
    assert "token" not in found
    heading, row = bema("ls").stdout.splitlines()
    assert heading.split() == ["SERVICE", "INSTANCE", "STATE", "PID", "ENDPOINTS"]
    assert row.split() == ["demo.worker", found["id"], "serving", str(process.pid), "generate"]
    heading, row = bema("ls", "-v").stdout.splitlines()
    assert (heading.split()[-2:], row.split()[-1]) == (["ISOLATION", "START"], "none")
    process.kill()
    process.communicate()
    assert bema("ls").stdout == ""


@pytest.mark.parametrize(
    ("marks", "state"),
    [
        ({}, "serving"),
        ({"ready": False}, "serving, not ready"),
        ({"stalled": True}, "serving, stalled"),
        ({"state": State.DRAINING, "ready": False, "stalled": True}, "draining, not ready, stalled"),
    ],
)
def test_marks_stand_beside_the_state(marks, state):
    assert ls._row(Instance(id=1, namespace="demo", component="worker", **marks))[2] == state


@pytest.mark.parametrize(
    ("entered", "says"),
    [
        (None, "none"),
        ({"kind": "none"}, "none"),
        ({"kind": "standard", "level": "full", "missing": []}, "standard at level full"),
        ({"kind": "strict", "level": "full", "network": []}, "strict at level full, network none"),
        ({"kind": "filtered", "level": "network", "network": [53, 443]}, "filtered at level network, network 53,443"),
        ("forged", "none"),
    ],
)
def test_how_an_instance_is_isolated_is_told_to_who_asks_for_more(entered, says):
    data = {} if entered is None else {"isolation": entered}
    assert ls._isolation(Instance(id=1, namespace="demo", component="worker", data=data)) == says


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, ""),
        ({"start": {"kind": "zygote"}, "phases": {"fork": 8, "import": 25}}, "zygote 33 ms"),
        ({"start": {"kind": "exec", "why": "its first"}, "phases": {"interpreter": 285}}, "exec 285 ms"),
    ],
)
def test_how_a_deployed_instance_was_started_is_told_to_who_asks_for_more(data, says):
    assert ls._start(Instance(id=1, namespace="demo", component="worker", data=data)) == says


@pytest.mark.parametrize(
    ("instance", "state"),
    [
        (None, "ready"),
        ({"stalled": False, "stands": ""}, "ready"),
        ({"stalled": True, "stands": ""}, "ready, stalled"),
        (
            {"stalled": True, "stands": "stalled 5.2 s in main.py:42 time.sleep"},
            "ready, stalled 5.2 s in main.py:42 time.sleep",
        ),
    ],
)
def test_a_stalled_deployment_says_where_it_stands(instance, state):
    assert ls._state({"state": "ready", "instance": instance}) == state
