"""What has to be true before a version is released. Law: nothing is uploaded here; the last line says how it would be."""

from __future__ import annotations

import re
from pathlib import Path

from tools.terminal import stop

VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


def check_release(root: Path, arguments: list[str]) -> str:
    """The version, or a refusal that says which file says otherwise."""
    if len(arguments) != 1 or not VERSION.fullmatch(arguments[0]):
        stop("name one version: MAJOR.MINOR.PATCH", "python3 dev.py release 0.1.0")
    version = arguments[0]
    source = root / "bema/core/version.py"
    said = re.search(r'^VERSION = "([^"]+)"', source.read_text(), re.MULTILINE)
    if not said or said[1] != version:
        stop(f"bema/core/version.py says {said[1] if said else 'nothing'}, not {version}", "set VERSION there")
    heading = re.compile(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", re.MULTILINE)
    changes = (root / "CHANGELOG.md").read_text()
    found = heading.search(changes)
    if not found:
        stop(f"CHANGELOG.md has no section of {version}", f"head it `## [{version}] - YYYY-MM-DD`")
    if not re.search(r"^- ", changes[found.end() :].partition("\n## ")[0], re.MULTILINE):
        stop(f"CHANGELOG.md says nothing of {version}", "write a line for each thing that a user would notice")
    return version


def upload_command(root: Path, version: str) -> str:
    files = sorted((root / "dist").glob(f"bema-{version}*"))
    return f".venv/bin/uv publish {' '.join(str(file.relative_to(root)) for file in files)}"
