"""A folder of a repository is a source: fetched by git at one commit, from a checked address, and nothing of it runs."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bema.core.errors import BemaError, Invalid, Refused
from bema.core.limits import DEFAULTS, Limits
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.addresses import Networks
from bema.deploy.sources.fetch import Fetcher, Resolve, resolved
from bema.deploy.sources.git import GitSource
from bema.deploy.sources.source import Fetched, SourceFactory
from tests.servers.git_http import Repositories
from tests.servers.web import Answering, Web, said, web

HERE = Networks("127.0.0.0/8")
LIMITS = DEFAULTS.but(source_bytes=200_000)
FILES = {"main.py": "import shop", "lib/shop.py": "x = 1", "lib/deep/other.py": "y = 1", "README.md": "no code"}


@pytest.fixture
def repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repositories:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Repositories(tmp_path / "repositories")


async def story(
    answering: Answering,
    seen: list[Web],
    name: str = "shop",
    networks: Networks = HERE,
    resolve: Resolve = resolved,
    host: str = "",
    user: str = "",
    limits: Limits = LIMITS,
    **said: Any,
) -> Fetched:
    async with web(answering) as server:
        seen.append(server)
        url = f"http://{user}{host or server.host}:{server.port}/{name}.git"
        return await GitSource(url, Fetcher(limits, networks, resolve), limits, **said).fetch()


def fetched(repositories: Repositories, **said: Any) -> Fetched:
    found = asyncio.run(story(repositories.answer, [], **said))
    assert not list(Path(tempfile.gettempdir()).iterdir())
    return found


def refused(repositories: Repositories, **said: Any) -> BemaError:
    with pytest.raises(BemaError) as caught:
        fetched(repositories, **said)
    assert not list(Path(tempfile.gettempdir()).iterdir())
    return caught.value


def test_a_repository_is_a_tree_at_the_commit_that_its_head_names(repositories: Repositories):
    commit = repositories.commit("shop", FILES)
    found = fetched(repositories)
    assert found.bundle == Bundle({path: text.encode() for path, text in FILES.items()})
    assert (found.origin.type, found.origin.revision) == ("git", commit)
    assert found.origin.where.startswith("git+http://127.0.0.1:")


def test_a_folder_of_it_is_a_tree_of_its_own(repositories: Repositories):
    repositories.commit("shop", FILES)
    found = fetched(repositories, path="/lib/", entry="shop.py")
    assert found.bundle == Bundle({"shop.py": b"x = 1", "deep/other.py": b"y = 1"}, "shop.py")
    assert found.origin.where.endswith("/shop.git#lib")
    # one folder that holds all is not left out, as it is of an archive
    assert list(fetched(repositories, path="lib/deep").bundle.files) == ["other.py"]


def test_branch_tag_and_commit_name_what_they_named(repositories: Repositories):
    old = repositories.commit("shop", {"main.py": "1"}, "v1")
    new = repositories.commit("shop", {"main.py": "2"})
    side = repositories.commit("shop", {"main.py": "3"}, branch="side/way")
    found = {ref: fetched(repositories, ref=ref) for ref in ("v1", old, "main", "side/way", "refs/heads/side/way")}
    assert [one.bundle.script for one in found.values()] == [b"1", b"1", b"2", b"3", b"3"]
    assert [one.origin.revision for one in found.values()] == [old, old, new, side, side]


@pytest.mark.parametrize(
    "said",
    [{"name": "nope"}, {"ref": "nope"}, {"ref": "0" * 40}, {"path": "nope"}, {"path": "main.py"}],
)
def test_what_is_not_there_is_not_found(repositories: Repositories, said: dict[str, str]):
    repositories.commit("shop", FILES)
    error = refused(repositories, **said)
    assert (error.code, error.problem.http) == ("source_not_found", 422)


def test_a_private_repository_wants_its_password_and_nobody_is_asked(tmp_path: Path, repositories: Repositories):
    private = Repositories(tmp_path / "repositories", password="pass word")
    private.commit("shop", FILES)
    assert refused(private).code == "source_denied"
    assert refused(private, user="me:wrong@").code == "source_denied"
    found = fetched(private, user="me:pass%20word@")
    assert found.bundle.script == b"import shop"
    assert "pass" not in repr(found.origin)


@pytest.mark.parametrize(
    "ref", ["--upload-pack=touch /tmp/x", "-x", "a..b", "a b", "a:b", "+a:b", "a\nb", "refs/*", "@{-1}", "a~1"]
)
def test_a_ref_is_a_name_and_no_option(ref: str):
    with pytest.raises(Invalid):
        GitSource("https://code.test/shop.git", Fetcher(LIMITS, HERE), LIMITS, ref=ref)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc",
        "ssh://git@code.test/shop",
        "git@code.test:shop",
        "ext::sh -c id",
        "/etc",
        "git://code.test/shop",
        "",
    ],
)
def test_another_protocol_is_refused(url: str):
    with pytest.raises(Invalid) as caught:
        SourceFactory.choose("git").of({"type": "git", "url": url}, LIMITS)
    assert caught.value.code == "source_refused"


def test_git_connects_to_the_address_that_was_checked(repositories: Repositories):
    repositories.commit("shop", FILES)
    asked = 0

    async def resolve(host: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"]

    # no name server knows it: git has the address of us
    found = fetched(repositories, host="code.test", resolve=resolve)
    assert (found.bundle.script, asked) == (b"import shop", 1)


def test_an_address_that_may_not_be_is_not_connected_to(repositories: Repositories):
    seen: list[Web] = []
    with pytest.raises(Invalid) as caught:
        asyncio.run(story(repositories.answer, seen, networks=Networks()))
    assert (caught.value.code, seen[0].connections) == ("source_refused", 0)


@pytest.mark.parametrize("status", [301, 302, 307])
def test_git_follows_no_redirect(repositories: Repositories, status: int):
    async def both() -> int:
        async with web(lambda seen: said("trap")) as trap:
            with pytest.raises(BemaError) as caught:
                await story(lambda seen: said(status=status, location=trap.url + seen.target), [])
            assert caught.value.code in ("source_refused", "source_unreachable")
            return trap.connections

    assert asyncio.run(both()) == 0


def test_a_dumb_server_that_points_elsewhere_is_not_believed(repositories: Repositories):
    repositories.commit("shop", FILES)
    bare = repositories.folder / "shop.git"
    repositories.git("update-server-info", cwd=bare)

    async def both() -> int:
        async with web(lambda seen: said("trap")) as trap:

            def dumb(seen: Any) -> bytes:
                if seen.path.endswith("alternates"):
                    return said(f"{trap.url}/objects\n")
                file = bare / seen.path.removeprefix("/shop.git/")
                return said(file.read_bytes()) if file.is_file() and "objects" not in seen.path else said(status=404)

            with pytest.raises(BemaError):
                await story(dumb, [])
            return trap.connections

    assert asyncio.run(both()) == 0


def test_nothing_of_the_repository_or_of_the_user_runs(repositories: Repositories, tmp_path: Path, monkeypatch):
    home, mark = tmp_path / "home", tmp_path / "ran"
    home.mkdir()
    hook = f"#!/bin/sh\ntouch {mark}\n"
    (home / "template" / "hooks").mkdir(parents=True)
    (home / "template" / "hooks" / "reference-transaction").write_text(hook)
    (home / "template" / "hooks" / "reference-transaction").chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[init]\n\ttemplateDir = {home}/template\n[core]\n\thooksPath = {home}/template/hooks\n[http]\n\tproxy = "x"\n'
        f'[filter "evil"]\n\tsmudge = touch {mark}\n\trequired = true\n'
    )
    repositories.commit("inner", {"main.py": ""})
    work = repositories.work("shop")
    repositories.git("submodule", "add", "-q", str(repositories.folder / "inner.git"), "inner", cwd=work)
    repositories.commit("shop", {**FILES, ".gitattributes": "*.py filter=evil\n", "hooks/post-checkout": hook})
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {mark}")
    found = fetched(repositories)
    assert not mark.exists()
    assert "inner/main.py" not in found.bundle.files


def test_a_link_in_the_tree_is_refused_by_name(repositories: Repositories):
    (repositories.work("shop") / "up.py").symlink_to("../../etc/passwd")
    repositories.commit("shop", FILES)
    error = refused(repositories)
    assert (error.code, error.details["path"]) == ("archive_refused", "up.py")


def test_a_repository_over_the_limit_is_refused(repositories: Repositories):
    repositories.commit("shop", {"main.py": "", "data.bin": os.urandom(300_000)})
    assert refused(repositories).code == "source_too_large"
    # more than there may be at all: git is stopped while it writes
    repositories.commit("shop", {"data.bin": os.urandom(1_500_000)})
    assert refused(repositories).code == "source_too_large"
    # zeros: packed, it is small
    repositories.commit("shop", {"data.bin": bytes(30_000_000)})
    assert refused(repositories).code == "source_too_large"


def test_a_server_that_says_nothing_is_left_and_git_with_it(repositories: Repositories):
    asked = asyncio.Event()

    async def never(seen: Any) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return b""

    with pytest.raises(BemaError, match="source_time") as caught:
        asyncio.run(story(never, [], limits=LIMITS.but(source_time=3)))
    assert caught.value.code == "source_unreachable"
    assert asked.is_set()
    assert not list(Path(tempfile.gettempdir()).iterdir())


@pytest.mark.parametrize(("version", "word"), [("git version 2.36.9", "2.36.9"), ("", "this git"), (None, "no git")])
def test_a_git_that_cannot_be_told_where_to_connect_is_not_used(
    repositories: Repositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, word: str
):
    folder = tmp_path / "bin"
    folder.mkdir()
    if version is not None:
        (folder / "git").write_text(f"#!/bin/sh\necho '{version}'\n")
        (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    seen: list[Web] = []
    with pytest.raises(Refused, match=word) as caught:
        asyncio.run(story(repositories.answer, seen))
    assert (caught.value.code, seen[0].connections) == ("not_supported", 0)


def test_a_server_that_is_none_of_git(repositories: Repositories):
    with pytest.raises(BemaError) as caught:
        asyncio.run(story(lambda seen: said("<html>", content_type="text/html"), []))
    assert caught.value.code in ("source_not_found", "source_unreachable")
