"""Extras: how what is missing is installed beside the bema that runs.

Law: a remedy works as it is printed. bema is on no index, so the line names the place that this copy came from.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]


def install_line(*extras: str) -> str:
    """The command that adds the extras to the environment that it is typed in."""
    wanted = f"bema[{','.join(extras)}]"
    where = _CHECKOUT.as_uri() if (_CHECKOUT / "pyproject.toml").is_file() else _origin()
    return f"pip install '{wanted} @ {where}'" if where else f"pip install '{wanted}'"


def _origin() -> str:
    """The address that an installed copy was installed from (PEP 610); empty where nobody wrote it down."""
    try:
        said = importlib.metadata.distribution("bema").read_text("direct_url.json")
        return str(json.loads(said or "{}").get("url", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError, AttributeError):
        return ""
