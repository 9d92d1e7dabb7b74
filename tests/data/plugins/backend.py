"""A build backend (PEP 517 and 660) of the standard library alone, so that packages are built without a network.

It reads [project], puts every package folder beside pyproject.toml into the wheel, and nothing else.
"""

import base64
import hashlib
import tomllib
import zipfile
from pathlib import Path


def _project():
    return tomllib.loads(Path("pyproject.toml").read_text())["project"]


def _metadata(project):
    lines = ["Metadata-Version: 2.3", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {line}" for line in project.get("dependencies", [])]
    for extra, lines_of_extra in project.get("optional-dependencies", {}).items():
        lines += [f"Provides-Extra: {extra}"]
        lines += [f"Requires-Dist: {line}; extra == '{extra}'" for line in lines_of_extra]
    return "\n".join(lines) + "\n"


def _points(project):
    groups = project.get("entry-points", {})
    return "".join(
        f"[{g}]\n" + "".join(f"{n} = {v}\n" for n, v in sorted(p.items())) for g, p in sorted(groups.items())
    )


def _wheel(folder, files):
    project = _project()
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    info = f"{stem}.dist-info"
    raw = Path("entry_points.raw")
    files = {
        **files,
        f"{info}/METADATA": _metadata(project).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": raw.read_bytes() if raw.exists() else _points(project).encode(),
    }
    rows = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(content)}\n")
    files[f"{info}/RECORD"] = ("".join(rows) + f"{info}/RECORD,,\n").encode()
    name = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / name, "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    found = [*Path().rglob("*.py"), *Path().rglob("*.toml")]
    sources = [p for p in sorted(found) if p.name not in ("backend.py", "pyproject.toml")]
    return _wheel(wheel_directory, {p.as_posix(): p.read_bytes() for p in sources})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {f"_{_project()['name']}.pth": f"{Path().absolute()}\n".encode()})


def get_requires_for_build_wheel(config_settings=None):
    return []


get_requires_for_build_editable = get_requires_for_build_wheel
