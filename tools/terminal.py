"""How dev.py speaks: what it does on stderr, what it refuses in a sentence with the remedy."""

from __future__ import annotations

import sys
from typing import NoReturn


def say(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def stop(what: str, fix: str, code: int = 1) -> NoReturn:
    print(f"error: {what}\n  fix: {fix}", file=sys.stderr, flush=True)
    raise SystemExit(code)
