"""Files a person keeps: replaced whole or not at all, with their mode, their line ends and their byte order mark."""

from __future__ import annotations

import os
from pathlib import Path

from bema.core.errors import Refused

BOM = "\ufeff".encode()


def replace_text(file: Path, text: str) -> None:
    """Write a file by rename; one that was there keeps its mode and its byte order mark."""
    target = file.resolve()
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        there = target.exists()
        mark = BOM if there and target.read_bytes().startswith(BOM) else b""
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(mark + text.encode())
            if there:  # before the rename, so that the file is never seen with another mode
                beside.chmod(target.stat().st_mode & 0o7777)
            beside.replace(target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Refused(
            f"{file}: {error.strerror}", code="state_unwritable", fix="Name a place that can be written."
        ) from error
