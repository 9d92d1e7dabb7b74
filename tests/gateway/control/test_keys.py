"""Keys at the door: a user's lets in as that user and no other, from the answer that makes it to the one that revokes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bema.core.access import Credentials
from bema.core.keys import new_key
from bema.deploy.orchestrator.service import Orchestrator
from bema.gateway.control.door import Door, KnownKeys
from tests.gateway.control.test_app import CODE, Up, run, up


async def key_of(u: Up, name: str, **more: Any) -> dict[str, str]:
    """The header of a key that was just made."""
    made = await u.api.post("/keys", json={"name": name, **more})
    assert made.status_code == 201, made.text
    return {"authorization": f"Bearer {made.json()['key']}"}


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_key_is_told_once_and_lets_in_until_it_is_revoked(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada = await key_of(u, "laptop", user="ada")
            text = ada["authorization"].removeprefix("Bearer ")
            assert (await u.api.get("/faas/python", headers=ada)).json()["items"] == []
            listed = await u.api.get("/keys")
            assert text not in listed.text
            assert [(k["name"], k["user"], k["admin"], k["expires"]) for k in listed.json()["items"]] == [
                ("laptop", "ada", False, 0)
            ]
            assert code(await u.api.post("/keys", json={"name": "laptop"})) == (409, "key_exists")
            assert (await u.api.delete("/keys/laptop")).status_code == 204
            assert code(await u.api.get("/faas/python", headers=ada)) == (401, "unauthenticated")
            assert code(await u.api.delete("/keys/laptop")) == (404, "not_found")

    run(story())


def test_the_text_of_a_key_is_nowhere_in_the_store(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada = await key_of(u, "laptop", user="ada")
            kept = [entry.value for entry in await u.platform.engine.scan("")]
            secret = ada["authorization"].removeprefix("Bearer ").encode()
            assert kept
            assert not any(secret in value for value in kept)

    run(story())


def test_what_is_not_yours_is_not_there(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada, bob = await key_of(u, "ada"), await key_of(u, "bob")
            made = (await u.api.post("/faas/python", json={"name": "x", "code": CODE}, headers=ada)).json()
            assert made["owner"] == "ada"
            # the name is one's own: both have it
            other = await u.api.post("/faas/python", json={"name": "x", "code": CODE}, headers=bob)
            assert (other.status_code, other.json()["owner"]) == (202, "bob")
            assert [d["id"] for d in (await u.api.get("/faas/python", headers=bob)).json()["items"]] == [
                other.json()["id"]
            ]
            unknown = "9b915dd4-6c9a-44e7-b569-c180dccbd949"
            for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/logs")):
                theirs = await u.api.request(method, f"/faas/python/{made['id']}{rest}", headers=bob)
                nobodys = await u.api.request(method, f"/faas/python/{unknown}{rest}", headers=bob)
                assert code(theirs) == code(nobodys) == (404, "not_found")
                assert (
                    theirs.json()["error"]["message"].replace(made["id"], unknown)
                    == (nobodys.json()["error"]["message"])
                )

    run(story())


def test_a_user_names_itself_alone_and_an_administrator_anybody(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada, ops = await key_of(u, "ada"), await key_of(u, "ops", admin=True)
            body = {"name": "x", "code": CODE, "user": "foo"}
            assert code(await u.api.post("/faas/python", json=body, headers=ada)) == (403, "forbidden")
            assert code(await u.api.get("/faas/python?user=foo", headers=ada)) == (403, "forbidden")
            made = await u.api.post("/faas/python", json=body, headers=ops)
            assert (made.status_code, made.json()["owner"]) == (202, "foo")
            own = await u.api.post("/faas/python", json={**body, "user": "ada"}, headers=ada)
            assert own.json()["owner"] == "ada"
            assert len((await u.api.get("/faas/python", headers=ops)).json()["items"]) == 2
            for asked in (
                u.api.get("/faas/python?user=foo", headers=ops),
                u.api.request("GET", "/faas/python", json={"user": "foo"}, headers=ops),
                u.api.request("GET", "/mcp-service", json={"user": "foo"}),
            ):
                assert [d["owner"] for d in (await asked).json()["items"]] == ["foo"]
            two = await u.api.request("GET", "/faas/python?user=ada", json={"user": "foo"})
            assert code(two) == (422, "invalid_argument")
            assert code(await u.api.get("/faas/python?user=a%2Fb")) == (422, "bad_name")

    run(story())


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_keys_are_an_administrators_business(tmp_path: Path, method: str):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada = await key_of(u, "ada")
            path = "/keys/ada" if method == "DELETE" else "/keys"
            assert code(await u.api.request(method, path, json={"name": "more"}, headers=ada)) == (403, "forbidden")

    run(story())


@pytest.mark.parametrize(
    ("body", "status"),
    [({"name": "a/b"}, 422), ({"name": "a", "user": "?"}, 422), ({"name": "a", "expires_in": 0}, 422), ({}, 422)],
)
def test_a_key_that_cannot_be_made_says_why(tmp_path: Path, body: dict[str, Any], status: int):
    async def story() -> None:
        async with up(tmp_path) as u:
            assert (await u.api.post("/keys", json=body)).status_code == status
            assert (await u.api.get("/keys")).json()["items"] == []

    run(story())


def test_a_key_that_is_over_lets_nobody_in(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada = await key_of(u, "short", user="ada", expires_in=1)
            async with asyncio.timeout(20):
                while (await u.api.get("/faas/python", headers=ada)).status_code != 401:
                    await asyncio.sleep(0.05)
            await key_of(u, "short", user="ada")  # its name is free again

    run(story())


def test_a_key_that_is_known_lets_in_while_the_orchestrator_is_away(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada = await key_of(u, "ada")
            await u.serving.drain(0)
            assert (await u.api.get("/faas/python", headers=ada)).status_code == 503
            assert code(await u.api.get("/keys", headers=ada)) == (403, "forbidden")
            assert (await u.api.get("/keys", headers={"authorization": f"Bearer {new_key()}"})).status_code == 401

    run(story())


def test_who_shows_a_key_before_any_is_known_is_asked_to_come_again():
    async def story() -> None:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(untold()), base_url="http://api.test") as api:
            for credential, status in ((new_key(), 503), ("bema_x", 401)):
                answer = await api.get("/faas/python", headers={"authorization": f"Bearer {credential}"})
                assert answer.status_code == status

    run(story())


def untold() -> Door:
    """A door that heard of no keys yet."""

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("a stranger came in")

    return Door(inside, Credentials({}), KnownKeys(Orchestrator()).principal, ())
