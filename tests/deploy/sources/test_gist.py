"""A gist is a source: the files of one revision, whole, whatever its author does later."""

import asyncio
from typing import Any

import pytest

from bema.core import settings
from bema.core.errors import BemaError, Invalid
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.addresses import Networks
from bema.deploy.sources.fetch import Fetcher
from bema.deploy.sources.gist import GistSource
from bema.deploy.sources.source import Fetched, SourceFactory
from tests.servers.gists import Gists
from tests.servers.web import Web, web
from tests.servers.web import said as answer

ID, SECRET = "a1b2c3", "b0b0b0"
LIMITS = DEFAULTS.but(source_bytes=20_000)


def fetched(gists: Gists, id: str = ID, *, seen: list[Web] | None = None, **said: Any) -> Fetched:
    async def story() -> Fetched:
        async with web(gists.api) as api, web(gists.raw, "127.0.0.2") as raw:
            gists.raw_url = raw.url
            (seen if seen is not None else []).extend((api, raw))
            fetcher = Fetcher(LIMITS, Networks("127.0.0.0/8"))
            return await GistSource(id, fetcher, LIMITS, api=api.url, **said).fetch()

    return asyncio.run(story())


def refused(gists: Gists, id: str = ID, **said: Any) -> BemaError:
    with pytest.raises(BemaError) as caught:
        fetched(gists, id, **said)
    return caught.value


def test_the_files_of_a_gist_are_a_tree_and_its_revision_is_told():
    gists = Gists()
    revision = gists.push(ID, {"main.py": "import shop", "shop.py": "x = 1"})
    found = fetched(gists)
    assert found.bundle == Bundle({"main.py": b"import shop", "shop.py": b"x = 1"})
    assert (found.origin.type, found.origin.where, found.origin.revision) == ("gist", f"gist:{ID}", revision)


def test_a_revision_is_what_it_was():
    gists = Gists()
    old = gists.push(ID, {"shop.py": "x = 1"})
    new = gists.push(ID, {"shop.py": "x = 2"})
    assert fetched(gists, revision=old).bundle.script == b"x = 1"
    assert fetched(gists, revision=old).origin.revision == old
    assert fetched(gists).origin.revision == new


def test_what_is_too_large_to_be_told_and_what_is_no_text_is_fetched_as_it_is():
    gists = Gists(token="t")
    files = {"main.py": b"# " + b"x" * 5000, "a b.bin": bytes(range(256)), "small.py": b"y = 1"}
    gists.push(ID, files)
    seen: list[Web] = []
    assert fetched(gists, seen=seen, token="t").bundle == Bundle(files)
    api, raw = seen
    # the token is for the API: the host of raw files never sees it
    assert [request.headers.get("authorization") for request in api.requests] == ["Bearer t"]
    assert len(raw.requests) == 2


def test_the_file_that_is_run_may_be_named():
    gists = Gists()
    gists.push(ID, {"a.py": "1", "b.py": "2"})
    found = fetched(gists, file="b.py")
    assert (found.bundle.script, found.origin.where) == (b"2", f"gist:{ID}#b.py")
    assert refused(gists, file="c.py").code == "entry_file_missing"
    assert refused(gists).code == "entry_file_missing"


def test_a_secret_gist_wants_a_token():
    gists = Gists(token="t")
    gists.push(SECRET, {"main.py": "1"})
    assert refused(gists, SECRET).code == "source_not_found"
    assert refused(gists, SECRET, token="wrong").code == "source_denied"
    assert fetched(gists, SECRET, token="t").bundle.script == b"1"


def test_who_asks_too_often_is_told_when_to_come_again():
    gists = Gists(left=0)
    gists.push(ID, {"main.py": "1"})
    error = refused(gists)
    assert (error.code, error.problem.http) == ("source_rate_limited", 429)
    assert error.retry_after is not None
    assert 240 <= error.retry_after <= 300


@pytest.mark.parametrize(("id", "said"), [("ffff", {}), (ID, {"revision": "0" * 40})])
def test_what_is_not_there_is_not_found(id: str, said: dict[str, str]):
    gists = Gists()
    gists.push(ID, {"main.py": "1"})
    assert refused(gists, id, **said).code == "source_not_found"


def test_half_a_file_is_none():
    gists = Gists()
    gists.push(ID, {"main.py": "#" * 2000})
    gists.cut = True
    assert refused(gists).code == "source_unreachable"


@pytest.mark.parametrize(
    "files",
    [
        {"main.py": b"#" * 19_000, "b.py": b"#" * 2000},
        {"main.py": b"#" * 21_000},
        {f"{n}.py": b"" for n in range(301)},
    ],
)
def test_a_gist_over_the_limit_is_refused(files: dict[str, bytes]):
    gists = Gists()
    gists.push(ID, files)
    assert refused(gists).code == "source_too_large"


def test_a_server_that_tells_of_no_gist():
    async def story() -> None:
        for body in ("[]", "{", '{"files": {}, "history": []}'):
            async with web({f"/gists/{ID}": answer(body)}) as api:
                source = GistSource(ID, Fetcher(LIMITS, Networks("127.0.0.0/8")), LIMITS, api=api.url)
                with pytest.raises(BemaError) as caught:
                    await source.fetch()
                assert caught.value.code == "source_unreachable"

    asyncio.run(story())


@pytest.mark.parametrize(
    "said", [{"id": "../user"}, {"id": ""}, {"id": ID, "revision": "main"}, {"id": ID, "files": 1}, {}]
)
def test_what_names_no_gist_is_refused_before_anybody_is_asked(said: dict[str, str]):
    with pytest.raises(Invalid):
        SourceFactory.choose("gist").of({"type": "gist", **said}, LIMITS)


def test_api_and_token_are_settings_of_the_platform(monkeypatch, tmp_path):
    gists = Gists(token="t")
    gists.push(SECRET, {"main.py": "1"})

    async def story() -> bytes:
        async with web(gists.api) as api:
            monkeypatch.setenv("BEMA_SOURCES__GIST_API", api.url)
            monkeypatch.setenv("BEMA_SOURCES__GIST_TOKEN", "MY_GITHUB")
            monkeypatch.setenv("MY_GITHUB", "t\n")
            monkeypatch.setenv("BEMA_SOURCES__NETWORKS", "127.0.0.1/32")
            settings.place(None)
            source = SourceFactory.choose("gist").of({"type": "gist", "id": SECRET}, LIMITS)
            return (await source.fetch()).bundle.script

    assert asyncio.run(story()) == b"1"
