"""What `import bema` and a start may load: the list is the budget, a new name on it has to be wanted."""

import json
import subprocess
import sys
from pathlib import Path

import bema

PROGRAM = """
import asyncio, json, sys, msgspec
before = set(sys.modules)
import bema
alone = sorted(set(sys.modules) - before)

class Worker:
    @bema.endpoint()
    async def generate(self, text: str) -> str:
        return text

    @bema.async_init
    async def init(self):
        asyncio.get_running_loop().call_later(0, self.runtime.stop)

    def __init__(self, runtime):
        self.runtime = runtime

asyncio.run(bema.serve(bema.service(name="w", namespace="demo")(Worker)))
print(json.dumps([alone, sorted(set(sys.modules) - before)]))
"""

ALLOWED_ROOMS = {"bema.core", "bema.parts", "bema.wire", "bema.runtime", "bema.sdk"}
ALLOWED_OTHERS = {
    *(
        "_bisect",
        "_blake2",
        "_hashlib",
        "_random",
        "_sha512",
        "_sha2",
        "bisect",
        "hashlib",
        "hmac",
        "random",
        "secrets",
    ),
    *(
        "pwd",
        "grp",
        "pathlib",
        "fnmatch",
        "ntpath",
        "urllib",
        "urllib.parse",
        "ipaddress",
        "glob",
        "pathlib._abc",
        "pathlib._local",
    ),
    *("importlib.util", "importlib._abc"),  # whose file a plugin's module is
    *("msgspec.inspect", "concurrent.futures.thread", "queue", "_queue", "stringprep", "encodings.idna", "unicodedata"),
}


def test_only_what_is_wanted_is_loaded(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={"BEMA_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)},
        check=True,
    )
    alone, started = json.loads(done.stdout)
    assert alone == ["bema"]
    ours = {name for name in started if name.partition(".")[0] == "bema"}
    assert {".".join(name.split(".")[:2]) for name in ours - {"bema"}} == ALLOWED_ROOMS
    assert set(started) - ours - ALLOWED_OTHERS == set()


def test_every_public_name_is_there_once_and_is_what_type_checkers_see():
    source = Path(bema.__file__).read_text()
    for name in bema.__all__:
        assert getattr(bema, name) is getattr(bema, name)
        assert f" as {name}\n" in source, f"{name} is not in the TYPE_CHECKING block"
    assert source.count("\n    from bema.") == len(bema.__all__)
    assert dir(bema) == sorted(bema.__all__)
