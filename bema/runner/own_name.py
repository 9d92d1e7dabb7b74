"""The names under which a deployed file is imported by what it starts: `uvicorn.run("shop:app")`, a pool, a pickle.

A deployed file is stored under one name, while its author called it another. Law: a name is offered last, where nothing else
has it, and by a file in a folder of the path: so a child of any kind finds it as its parent does.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# as ASGI and WSGI servers are given an app: "module:attribute"
_MENTIONED = re.compile(rb"""[(=]\s*["']([A-Za-z_]\w*):([A-Za-z_]\w*)[\w.]*(?:\(\))?["']""")


def offer(script: Path, init: dict[str, Any]) -> list[str]:
    """Put the folder with the script's other names at the end of the path; returns these names."""
    temporary = os.environ.get("TMPDIR")
    # versions of a deployment share its TMPDIR: each has a folder by the path of its own file
    names = [name for name in dict.fromkeys(_names(script, init)) if name != script.stem and not _taken(name)]
    # a folder that others may write to would be theirs to put code in
    if not temporary or not names:
        return []
    folder = Path(temporary) / f"bema-{hashlib.sha256(os.fsencode(script)).hexdigest()[:16]}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            with contextlib.suppress(FileExistsError):
                (folder / f"{name}.py").symlink_to(script)
    except OSError:  # a full or read-only disk: most scripts do without
        return []
    _sweep(Path(temporary))
    sys.path.append(str(folder))
    return names


def _sweep(temporary: Path) -> None:
    """Remove the folders of versions that were forgotten: what their links lead to is gone."""
    for folder in temporary.glob("bema-*"):
        with contextlib.suppress(OSError):
            links = [each for each in folder.iterdir() if each.is_symlink()]
            if links and not any(each.exists() for each in links):
                shutil.rmtree(folder, ignore_errors=True)


def _names(script: Path, init: dict[str, Any]) -> Iterator[str]:
    deployed = str(init.get("name") or "")
    if re.fullmatch(r"[A-Za-z0-9_-]+", deployed):
        yield deployed
        yield deployed.replace("-", "_")
    source = script.read_bytes()
    # `try: import redis` must go on failing where Redis is absent, though some text says
    # "redis:main": only what names an object of this file is meant for it
    for mentioned, attribute in _MENTIONED.findall(source):
        if re.search(rb"^(?:(?:async )?def |class )?" + attribute + rb"\b", source, re.MULTILINE):
            yield mentioned.decode()


def _taken(name: str) -> bool:
    """Whether something else bears the name; an app called `flask` must not stand in the way of Flask."""
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True
