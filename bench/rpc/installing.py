"""The peers' own environment, outside our lock: made once under `.bench/`, remade when the list below changes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("ai-dynamo-runtime==1.6.1", "grpcio==1.85.1", "nats-py==2.16.0", "msgspec==0.22.0", "uvloop==0.23.0")
HOME = Path(__file__).parents[2] / ".bench" / "rpc"


def python() -> str | None:
    """The interpreter of the peers' environment; None, with the reason on stderr, where it cannot be made."""
    interpreter = HOME / "bin" / "python"
    mark = HOME / "complete"
    if mark.exists() and mark.read_text() == "\n".join(PACKAGES):
        return str(interpreter)
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    print(f"installing {', '.join(PACKAGES)} into {HOME}", file=sys.stderr)
    try:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(HOME)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(interpreter), *PACKAGES], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the peers cannot be installed: {error}", file=sys.stderr)
        return None
    mark.write_text("\n".join(PACKAGES))
    return str(interpreter)
