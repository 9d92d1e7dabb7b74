"""From a source to a workload: fetched once, its project built by its lock, its files beside what is run, its origin told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bema.core import settings
from bema.core.access import LOCAL_ADMIN
from bema.core.errors import BemaError
from bema.deploy.model.deployment import CreateRequest
from tests.deploy.platform import Platform, until
from tests.servers.gists import Gists
from tests.servers.git_http import Repositories
from tests.servers.web import Web, said, web

LOCK = """version = 1
requires-python = ">=3.11"

[[package]]
name = "shop"
version = "1"
source = { virtual = "." }

[package.metadata]
requires-dist = [{ name = "six" }]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://pypi.org/simple" }
"""
FILES = {
    "src/shop.py": "import words\napp = words.app\n",
    "src/words.py": "app = 1\n",
    "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\ndependencies = ["six"]\n'
    '[tool.bema]\nentry_file = "src/shop.py"\nentry = "app"\n',
    "uv.lock": LOCK,
}


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEMA_SOURCES__NETWORKS", "127.0.0.1/32")
    settings.place(None)


def test_a_tree_is_built_by_its_lock_and_laid_out_whole(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        async with platform.orchestrator() as found:
            request = CreateRequest("shop", {"type": "files", "files": FILES}, {})
            info = await found.create(request, LOCAL_ADMIN)
            await until(found, info.id, "ready")
        (wanted,) = platform.environments.made
        assert wanted.dependencies == ("six",)
        assert b'dependencies = ["six"]' in wanted.code
        assert 'requirements = [{ "name" = "six" }]' in wanted.lock
        (workload,) = platform.launcher.started
        script = Path(workload.script)
        assert script.read_text() == FILES["src/shop.py"]
        assert script.with_name("words.py").read_text() == FILES["src/words.py"]

    asyncio.run(story())


async def served(platform: Platform, source: dict[str, Any]) -> str:
    """Deploys a source; gives what is told of where its version came from."""
    async with platform.orchestrator() as found:
        info = await found.create(CreateRequest("shop", source, {}, replace=True), LOCAL_ADMIN)
        await until(found, info.id, "ready")
        newest, *_ = await found.versions(info.id, LOCAL_ADMIN)
        return newest.source


def test_a_source_that_changes_or_goes_is_of_no_concern_once_it_was_fetched(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        seen: list[Web] = []
        async with web({"/shop.py?key=secret": said("app = 1\n")}) as server:
            told = await served(platform, {"type": "url", "url": f"{server.url}/shop.py?key=secret"})
            seen.append(server)
        # it is started again from what is stored: nobody is there to be asked
        async with platform.orchestrator() as found:
            (info,) = (await found.list(LOCAL_ADMIN)).items
            await until(found, info.id, "ready")
        assert told.startswith(f"{server.url}/shop.py#sha256=")
        assert "secret" not in told
        assert len(seen[0].requests) == 1

    asyncio.run(story())


def test_commit_and_revision_are_told_with_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repositories, gists = Repositories(tmp_path / "repositories"), Gists()
    commit = repositories.commit("shop", {"app/main.py": "app = 1\n"})
    revision = gists.push("a1b2", {"main.py": "app = 2\n"})

    async def story() -> None:
        platform = Platform(tmp_path / "state")
        async with web(repositories.answer) as git, web(gists.api) as api:
            monkeypatch.setenv("BEMA_SOURCES__GIST_API", api.url)
            settings.place(None)
            said = {"type": "git", "url": f"{git.url}/shop.git", "path": "app"}
            assert await served(platform, said) == f"git+{git.url}/shop.git@{commit}#app"
            assert await served(platform, {"type": "gist", "id": "a1b2"}) == f"gist:a1b2@{revision}"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({"type": "url", "url": "http://169.254.169.254/latest/meta-data"}, "source_refused"),
        ({"type": "files", "files": {"a.py": "", "b.py": ""}}, "entry_file_missing"),
        ({"type": "files", "files": {"main.py": "def ("}}, "syntax_error"),
        ({"type": "files", "files": {**FILES, "uv.lock": LOCK.replace("six", "idna")}}, "lock_outdated"),
        ({"type": "tape"}, "invalid_argument"),
        ({"type": ["url"]}, "invalid_argument"),
        ({}, "invalid_argument"),
    ],
)
def test_a_source_that_is_refused_leaves_nothing(tmp_path: Path, source: dict[str, Any], code: str):
    async def story() -> None:
        async with Platform(tmp_path).orchestrator() as found:
            with pytest.raises(BemaError) as caught:
                await found.create(CreateRequest("shop", source, {}), LOCAL_ADMIN)
            assert caught.value.code == code
            assert not (await found.list(LOCAL_ADMIN)).items

    asyncio.run(story())
