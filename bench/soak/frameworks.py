"""Every framework that the stories know, deployed and asked through the gateway: `dev.py soak frameworks [NAME...]`.

Their packages come from the registry, so it takes minutes; the run of every day asks a quarter of them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import httpx2

from tests.stories.frameworks import PROGRAMS, ask
from tests.stories.harness import Platform


def main(names: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="bema-frameworks-") as folder:
        platform = Platform(Path(folder) / "state").up()
        try:
            failed = [name for name in names or PROGRAMS if not _answers(platform, name)]
        finally:
            platform.end()
    return len(failed) > 0


def _answers(platform: Platform, name: str) -> bool:
    try:
        ask(platform, name)
    except (AssertionError, KeyError, OSError, httpx2.HTTPError, ExceptionGroup) as error:
        print(f"FAILED {name}: {str(error)[:2000]}", flush=True)
        return False
    print(f"ok     {name}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
