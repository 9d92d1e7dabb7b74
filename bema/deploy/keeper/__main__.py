"""Started by path with `-I`: loads its own folder as a package, so that it needs no `sys.path`.

`CONFIG_FD` makes it the keeper, `warden PARENT PROGRAM ARGUMENT...` the warden of one program.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "bema_keeper"


def load() -> None:
    spec = importlib.util.spec_from_file_location(PACKAGE, HERE / "__init__.py", submodule_search_locations=[str(HERE)])
    if spec is None or spec.loader is None:
        raise SystemExit(f"bema: {HERE} cannot be loaded")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load()
    if sys.argv[1] == "warden":
        sys.exit(importlib.import_module(f"{PACKAGE}.warden").main(sys.argv[2:]))
    sys.exit(importlib.import_module(f"{PACKAGE}.keeper").main(int(sys.argv[1])))
