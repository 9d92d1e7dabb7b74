"""A store on a disk that is full: what frees room is written all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ALONE = ("unshare", "--mount", "--map-root-user")

STORY = """
import asyncio, os, sys
from pathlib import Path
from bema.core.errors import Refused
from bema.state.engine import Mutation
from bema.state.sqlite import SqliteEngine

def fill(path):
    with open(path, "wb", 0) as filling:
        try:
            while True:
                filling.write(bytes(4096))
        except OSError:
            pass

async def story(folder):
    engine = await SqliteEngine.at(folder / "s")
    digest = await engine.put_blob(bytes(200_000))
    await engine.apply([Mutation(f"k{n}", bytes(1000)) for n in range(100)])
    fill(folder / "filling")
    asked = [
        engine.apply([Mutation("big", bytes(400_000))]),
        engine.apply([Mutation(f"k{n}", None) for n in range(50)]),
        engine.apply([Mutation("k50", None), Mutation("k51", bytes(300_000))]),
    ]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    print([getattr(outcome, "code", "done") for outcome in outcomes])
    await engine.drop_blobs([digest])
    await engine.close()
    fill(folder / "filling again")
    engine = await SqliteEngine.at(folder / "s")
    print(len(await engine.scan()), await engine.blobs())
    for filling in folder.glob("filling*"):
        filling.unlink()
    await engine.apply([Mutation("k0", b"again")])
    await engine.close()
    again = await SqliteEngine.at(folder / "s")
    print(len(await again.scan()), os.stat(folder / "s.spare").st_size > 0)
    await again.close()

asyncio.run(story(Path(sys.argv[1])))
"""


def test_on_a_full_disk_deleting_works_and_the_rest_is_refused_whole(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux") or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here: user namespaces are closed")
    mount = f'mount -t tmpfs -o size=2m tmpfs {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    done = subprocess.run([*ALONE, "sh", "-c", mount, STORY], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['state_unwritable', 'done', 'state_unwritable']",
        "50 []",
        "51 True",
    ]
