"""Code from anywhere, asked for over the API: each kind has its fields, and what is refused says why."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import pytest

from bema.core import settings
from bema.core.limits import Limits
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.source import Fetched, SourceFactory, SourceOrigin
from tests.deploy.sources.test_archives import zipped
from tests.gateway.control.test_app import run, up
from tests.servers.web import said, web

GIST = {"type": "files", "files": {"main.py": {"content": "import lib\napp = lib.app\n"}, "lib.py": "app = 1\n"}}


def test_a_tree_and_an_archive_are_deployed(tmp_path):
    data = base64.b64encode(zipped({"shop/main.py": b"app = 1\n"})).decode()

    async def story():
        async with up(tmp_path) as u:
            for name, source in {"tree": GIST, "archive": {"type": "zip", "data": data}}.items():
                answer = await u.api.post("/faas/python", json={"name": name, "source": source})
                assert answer.status_code == 202, answer.text
                await u.state(answer.json()["id"], "ready")

    run(story())


@pytest.mark.parametrize(
    ("source", "code", "word"),
    [
        ({"type": "tape"}, "invalid_argument", "tape"),
        ({"code": "app = 1"}, "invalid_argument", "type"),
        ({"type": "url"}, "invalid_argument", "url"),
        ({"type": "url", "url": "https://a.test/", "sha265": ""}, "invalid_argument", "sha265"),
        ({"type": "files", "files": {"main.py": 1}}, "invalid_argument", r"files"),
        ({"type": "url", "url": "http://127.0.0.1/a.py"}, "source_refused", "127.0.0.1"),
        ({"type": "git", "url": "file:///etc"}, "source_refused", "file"),
        ({"type": "gist", "id": "../user"}, "invalid_argument", "gist"),
        ({"type": "s3", "url": "code/a.py"}, "source_refused", "s3://"),
    ],
)
def test_a_source_that_cannot_be_is_refused_with_its_field(tmp_path, source, code, word):
    async def story():
        async with up(tmp_path) as u:
            answer = await u.api.post("/faas/python", json={"name": "shop", "source": source})
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
            assert word in answer.json()["error"]["message"]

    run(story())


class ToldSource:
    """A kind that somebody brought: the code is what it is told."""

    def __init__(self, told: str) -> None:
        self._told = told

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> ToldSource:
        return cls(str(said["told"]))

    async def fetch(self) -> Fetched:
        return Fetched(Bundle.of_script(self._told.encode()), SourceOrigin("told"))


def test_a_kind_that_a_plugin_brings_is_passed_on(tmp_path):
    SourceFactory.register("told")(ToldSource)

    async def story():
        async with up(tmp_path) as u:
            answer = await u.api.post("/faas/python", json={"name": "a", "source": {"type": "told", "told": "app = 1"}})
            assert answer.status_code == 202, answer.text
            await u.state(answer.json()["id"], "ready")

    try:
        run(story())
    finally:
        SourceFactory.unregister("told", ToldSource)


def test_who_is_to_come_again_is_told_when(tmp_path, monkeypatch):
    monkeypatch.setenv("BEMA_SOURCES__NETWORKS", "127.0.0.1/32")
    settings.place(None)

    async def story():
        async with up(tmp_path) as u, web(lambda seen: said(status=429, retry_after="7")) as server:
            answer = await u.api.post("/faas/python", json={"name": "a", "source": {"type": "url", "url": server.url}})
            assert answer.json()["error"]["code"] == "source_rate_limited"
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")

    run(asyncio.wait_for(story(), 20))


def test_the_document_tells_the_kinds_apart(tmp_path):
    async def story():
        async with up(tmp_path) as u:
            schemas = (await u.api.get("/openapi.json")).json()["components"]["schemas"]
        kinds = {"Inline", "Files", "Url", "Zip", "Gist", "Git", "S3"}
        assert kinds <= schemas.keys()
        assert {schemas[kind]["properties"]["type"]["enum"][0] for kind in kinds} == {kind.lower() for kind in kinds}

    run(story())
