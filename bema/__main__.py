"""The console script, and `python -m bema`. `--version` is answered here, before anything else is imported."""

from __future__ import annotations

import importlib
import sys

from bema.core.version import VERSION


def main() -> int:
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"bema {VERSION}\n")
        return 0
    code: int = importlib.import_module("bema.cli").main()
    return code


if __name__ == "__main__":
    sys.exit(main())
