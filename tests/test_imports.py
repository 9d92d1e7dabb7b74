"""What importing bema costs: the modules it may load, by name. A new row here is a decision; say why in the change."""

from __future__ import annotations

import os
import subprocess
import sys

from bema.core.version import VERSION

LISTING = "import sys; before = set(sys.modules)\n{}\nprint('\\n'.join(sorted(set(sys.modules) - before)))"

# third parties that a service by itself may load, beside the standard library
THIRD_PARTIES = {"msgspec"}

# what start() may load of ours, by room; what calls others, answers a launcher or makes schemas is loaded by its first use
START = {
    "core": "access call clock deferred digest durable errors files instance limits naming paths problems redaction settings spec"
    " type_text version versions",
    # the doors of the parts; `doctor` and `edit` are the command line's
    "parts": "configured discover entries errors factory load manifest metadata opening policy provenance registry"
    " resolve scan selection",
    "wire": "module rpc values",
    "wire.rpc": "calls cursors failures frames reader",
    "wire.values": "codecs constraints declared equal loss records skeleton strict unions walks",
    "wire.module": "handshake",
    "runtime": "alarms discovery distributed folders forks process processes rpc tasks threads",
    "runtime.discovery": "discovery flock records",
    "runtime.rpc": "adapter admission blame call_log codec connection flow_control routes server server_call"
    " server_connection signatures sockets transports",
    "runtime.process": "host inheritance watchdog",
    "sdk": "boot context decorators depends extensions health lifecycle options signals spec status",
}
ALLOWED = {"bema", *(f"bema.{room}" for room in START)} | {
    f"bema.{room}.{name}" for room, names in START.items() for name in names.split()
}
# the standard library's own weights, which a service has no use for
HEAVY = {
    "concurrent.futures.process",
    "email",
    "http",
    "multiprocessing",
    "sqlite3",
    "unittest",
    "urllib.request",
    "xml",
}

SERVICE = """
import asyncio, os, signal
from bema.core.paths import discovery_dir
from bema import service, endpoint, async_init
@service(name="worker", namespace="demo")
class Worker:
    @endpoint()
    async def answer(self) -> int:
        return 42
    @async_init
    async def end_when_shown(self):
        self.ending = asyncio.create_task(self.end())
    async def end(self):
        while not list(discovery_dir().glob("*.json")):
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)
asyncio.run(Worker.start())
"""


def loaded(code, **env):
    """The modules that running `code` adds to a Python that has imported what the baseline of start-up time has."""
    script = "import asyncio, msgspec\n" + LISTING.format(code)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **env}, timeout=30)
    return set(done.stdout.split())


def ours(modules):
    return {name for name in modules if name.split(".")[0] == "bema"}


def foreign(modules):
    """Top-level names that are neither ours nor of the standard library."""
    roots = {name.split(".")[0] for name in modules}
    return {root for root in roots - {"bema"} if root not in sys.stdlib_module_names and not root.startswith("_")}


def test_import_bema_loads_its_own_face_and_nothing_else():
    assert loaded("import bema") <= {"bema", "importlib", "importlib._abc", "importlib.machinery", "importlib.util"}


def test_the_version_can_be_had_without_loading_a_room():
    assert (
        VERSION
        in subprocess.run(
            [sys.executable, "-m", "bema", "--version"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_a_service_that_starts_loads_what_is_listed_and_nothing_else(tmp_path):
    found = loaded(SERVICE, BEMA_STATE_DIR=str(tmp_path))
    assert "bema.sdk.lifecycle" in found
    assert ours(found) - ALLOWED == set()
    assert foreign(found) - THIRD_PARTIES == set()
    assert found & HEAVY == set()


def test_the_runner_starts_from_the_standard_library_alone():
    found = loaded("import runpy, bema.runner")
    assert ours(found) <= {"bema", "bema.runner"}
    assert foreign(found) == set()
