"""Projects on this machine that a script may depend on, built by a backend of their own: nothing is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tools import tool

BACKEND = """
import base64, gzip, hashlib, io, json, os, pathlib, sys, tarfile, zipfile

HERE = pathlib.Path(__file__).parent
NAME, VERSION, REQUIRES = json.loads((HERE / "project.json").read_text())
INFO = f"{NAME}-{VERSION}.dist-info"
METADATA = f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n" + "".join(f"Requires-Dist: {r}\\n" for r in REQUIRES)


def wheel(folder, files):
    name = f"{NAME}-{VERSION}-py3-none-any.whl"
    files = {**files, f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as archive:
        rows = []
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(text.encode())}\\n")
        archive.writestr(zipfile.ZipInfo(f"{INFO}/RECORD"), "".join(rows) + f"{INFO}/RECORD,,\\n")
    return name


def build_wheel(folder, config_settings=None, metadata_directory=None):
    saw = json.dumps(dict(os.environ))
    return wheel(folder, {f"{NAME}.py": (HERE / f"{NAME}.py").read_text(), f"{NAME}_saw.py": f"environ = {saw}\\n"})


def build_editable(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, {f"{NAME}.pth": f"{HERE}\\n"})


def build_sdist(folder, config_settings=None):
    base = f"{NAME}-{VERSION}"
    packed = gzip.GzipFile(pathlib.Path(folder, f"{base}.tar.gz"), "w", mtime=0)
    with packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(HERE.glob("*.*")):
            archive.add(path, f"{base}/{path.name}")
        entry = tarfile.TarInfo(f"{base}/PKG-INFO")
        entry.size = len(METADATA.encode())
        archive.addfile(entry, io.BytesIO(METADATA.encode()))
    return f"{base}.tar.gz"


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
"""


class Project:
    """A project in a folder, whose module says `says`; what is changed keeps the times that it had."""

    def __init__(self, folder: Path, name: str = "lib", *requires: str) -> None:
        self.folder, self.name = folder, name
        folder.mkdir(parents=True)
        listed = ", ".join(f'"{r}"' for r in requires)
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            f'[project]\nname = "{name}"\nversion = "1"\ndependencies = [{listed}]\n'
        )
        (folder / "backend.py").write_text(BACKEND)
        (folder / "project.json").write_text(f'["{name}", "1", [{listed}]]')
        self.says("old")

    def says(self, word: str) -> None:
        module = self.folder / f"{self.name}.py"
        before = module.stat() if module.exists() else None
        module.write_text(f"says = {word!r}\n")
        if before is not None:
            os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))

    def built(self, what: str, into: Path) -> Path:
        """A wheel or an sdist of it, as if it had always been there."""
        into.mkdir(exist_ok=True, parents=True)
        before = {path: path.stat() for path in into.iterdir()}
        backend = self.folder / "backend.py"
        subprocess.run([sys.executable, backend, f"build_{what}", into], check=True)
        for path, status in before.items():
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return next(path for path in into.iterdir() if path.suffix in (".whl", ".gz"))

    def committed(self) -> str:
        """The URL of its repository, after a commit of everything."""
        git = [tool("git"), "-C", str(self.folder), "-c", "user.name=a", "-c", "user.email=a@b.test"]
        if not (self.folder / ".git").exists():
            subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "change"], check=False)  # there may be nothing to commit
        return f"git+{self.folder.as_uri()}@main"
