"""Started by path with `-I`: loads its own folder as a package, so that it needs no `sys.path`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "bema_runner"


def load() -> None:
    spec = importlib.util.spec_from_file_location(PACKAGE, HERE / "__init__.py", submodule_search_locations=[str(HERE)])
    if spec is None or spec.loader is None:
        raise SystemExit(f"bema: {HERE} cannot be loaded")
    # not `bema.runner`: a script that brings a bema of its own must find that one under the name
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load()
    script = importlib.import_module(f"{PACKAGE}.script")
    # in a zygote it returns only in what that has forked, which goes on as if it had been started here
    born = importlib.import_module(f"{PACKAGE}.zygote").main() if "BEMA_ZYGOTE" in os.environ else None
    script.main(born)
