"""Files a person keeps: replaced whole or not at all, with their mode, their line ends and their byte order mark."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from bema.core.errors import Refused

BOM = "\ufeff".encode()


def replace_text(file: Path, text: str) -> None:
    """Write a file by rename; one that was there keeps its mode and its byte order mark."""
    target = file.resolve()
    try:
        mark = BOM if target.exists() and target.read_bytes().startswith(BOM) else b""
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(mark + text.encode())
            if target.exists():
                shutil.copymode(target, name)
            else:
                Path(name).chmod(0o644)
            Path(name).replace(target)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Refused(
            f"{file}: {error.strerror}", code="state_unwritable", fix="Name a place that can be written."
        ) from error
