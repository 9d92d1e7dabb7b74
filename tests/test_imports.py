"""What importing bema costs: the modules it may load, by name. A new row here is a decision; say why in the change."""

from __future__ import annotations

import subprocess
import sys

from bema.core.version import VERSION

LISTING = "import sys; before = set(sys.modules)\n{}\nprint('\\n'.join(sorted(set(sys.modules) - before)))"

# third parties that a service by itself may load, beside the standard library
THIRD_PARTIES = {"msgspec"}


def loaded(code):
    """The modules that running `code` adds to a Python that has imported what the baseline of start-up time has."""
    script = "import asyncio, msgspec\n" + LISTING.format(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
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


def test_declaring_a_service_loads_no_third_party_but_msgspec():
    code = "from bema import service, endpoint, serve, connect\n@service()\nclass W:\n  @endpoint()\n  async def f(self) -> int: ..."
    found = loaded(code)
    assert foreign(found) <= THIRD_PARTIES
    rooms = {name.split(".")[1] for name in ours(found) if "." in name}
    assert rooms <= {"core", "wire", "runtime", "sdk"}


def test_the_runner_starts_from_the_standard_library_alone():
    found = loaded("import runpy, bema.runner")
    assert ours(found) <= {"bema", "bema.runner"}
    assert foreign(found) == set()
