"""Plugin packages, really built and installed, and programs that run beside them.

The program is a small `app` with one factory and one builtin; every run is a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from bema.parts import configured
from bema.parts.policy import PluginPolicy

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "tests" / "data" / "plugins"

APP = {
    "app/__init__.py": "",
    "app/parts.py": """
        import abc
        from bema.parts import Factory

        class BaseEndpoint(abc.ABC):
            def __init__(self, model_endpoint=None):
                self.model_endpoint = model_endpoint

            @abc.abstractmethod
            def format(self, text): ...

        class EndpointFactory(Factory[BaseEndpoint], group="app.endpoints", api="2.4"):
            pass
        """,
    "app/endpoints.py": """
        from app.parts import BaseEndpoint, EndpointFactory

        @EndpointFactory.register("chat")
        class ChatEndpoint(BaseEndpoint):
            def format(self, text):
                return f"chat {text}"
        """,
}

PLUGIN = """
    from pathlib import Path
    import os
    if marker := os.environ.get("MARKER"):
        Path(marker).joinpath(__name__).touch()

    from app.parts import BaseEndpoint

    class {title}(BaseEndpoint):
        def format(self, text):
            return f"{title} {{text}}"
    """

PRELUDE = """
import json, sys
import app.endpoints
from app.parts import BaseEndpoint, EndpointFactory as F
"""


class Machine:
    """A virtual environment, a folder of packages to install into it, and the app's source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.write(self.source, APP)
        libraries = folder / "libraries"
        libraries.mkdir()
        for place in (ROOT / "bema", Path(msgspec.__file__).parent, Path(click.__file__).parent):
            (libraries / place.name).symlink_to(place)
        self.path = [str(self.source), str(libraries)]
        self.uv("venv", "-q", "--python", sys.executable, str(folder / "env"))
        self.python = folder / "env" / "bin" / "python"

    @property
    def site(self) -> Path:
        return next((self.folder / "env" / "lib").glob("python*")) / "site-packages"

    def uv(self, *arguments: str) -> None:
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @staticmethod
    def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())

    def package(
        self,
        name: str,
        points: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | None = None,
        *,
        version: str = "1.0",
        group: str = "app.endpoints.plugins",
        project: str = "",
    ) -> Path:
        """A package's source: by default one module named after it, with one endpoint for `chat`."""
        module = name.replace("-", "_")
        title = module.title().replace("_", "")
        points = {"chat": f"{module}:{title}"} if points is None else points
        lines = "".join(f'"{key}" = {json.dumps(value)}\n' for key, value in points.items())
        folder = self.folder / "packages" / f"{name}-{version}"
        self.write(folder, {f"{module}.py": PLUGIN.format(title=title)} if files is None else files)
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\n{project}\n[project.entry-points."{group}"]\n{lines}'
        )
        shutil.copy(PACKAGES / "backend.py", folder)
        return folder

    def copy(self, package: Path) -> Path:
        """A package of this repository, in a folder where it may be built with the tests' backend."""
        folder = self.folder / "packages" / package.name
        shutil.copytree(package, folder)
        shutil.copy(PACKAGES / "backend.py", folder)
        return folder

    def install(self, *packages: Path, editable: bool = False) -> None:
        flags = [flag for p in packages for flag in (["-e", str(p)] if editable else [str(p)])]
        self.uv("pip", "install", "-q", "--python", str(self.python), "--no-index", "--no-deps", "--no-cache", *flags)

    def uninstall(self, *names: str) -> None:
        self.uv("pip", "uninstall", "-q", "--python", str(self.python), *names)

    def add(self, name: str, *arguments: Any, **keywords: Any) -> None:
        self.install(self.package(name, *arguments, **keywords))

    def run(
        self, code: str, *, prelude: str = PRELUDE, first: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the environment; its working directory is empty but for what a test puts there."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BEMA_", "PYTHON", "VIRTUAL"))}
        path = os.pathsep.join([*([first] if first else []), *self.path])
        script = self.folder / "program.py"
        script.write_text(prelude + textwrap.dedent(code))
        return subprocess.run(
            [self.python, "-X", "utf8", str(script)],
            cwd=self.home,
            env={**kept, "PYTHONPATH": path, "BEMA_STATE_DIR": str(self.folder / "state"), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def ask(self, expression: str, **env: Any) -> Any:
        """The value of an expression after discovery, as JSON."""
        done = self.run(f"F.discover_plugins('app.endpoints')\nprint(json.dumps({expression}))", **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def bema(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        code = f"from bema.cli import main\nraise SystemExit(main({list(arguments)!r}))"
        return self.run(code, prelude="", **env)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture(autouse=True)
def policy() -> Iterator[Callable[[PluginPolicy], object]]:
    """Every test starts from the default policy, and may place another."""
    before = configured.place(PluginPolicy())
    yield configured.place
    configured.place(before)
