"""Secrets over HTTP: set, listed without a value, removed; each user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.control.test_app import run, up
from tests.gateway.control.test_keys import code, key_of

SECRET = "s3cr3t-of-this-test"


def test_a_secret_is_set_listed_and_removed(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            assert (await u.api.put("/secrets/TOKEN", json={"value": SECRET})).status_code == 204
            listed = await u.api.get("/secrets")
            assert [each["name"] for each in listed.json()["items"]] == ["TOKEN"]
            assert SECRET not in listed.text
            assert u.platform.parts.secrets.values("local", ["TOKEN"]) == {"TOKEN": SECRET}
            assert (await u.api.delete("/secrets/TOKEN")).status_code == 204
            assert code(await u.api.delete("/secrets/TOKEN")) == (404, "not_found")
            assert (await u.api.get("/secrets/TOKEN")).status_code == 405  # no operation reads one

    run(story())


def test_each_user_has_secrets_of_its_own(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada, bob = await key_of(u, "ada"), await key_of(u, "bob")
            assert (await u.api.put("/secrets/TOKEN", json={"value": SECRET}, headers=ada)).status_code == 204
            assert (await u.api.get("/secrets", headers=bob)).json()["items"] == []
            assert code(await u.api.delete("/secrets/TOKEN", headers=bob)) == (404, "not_found")
            assert code(await u.api.get("/secrets?user=ada", headers=bob)) == (403, "forbidden")
            assert len((await u.api.get("/secrets?user=ada")).json()["items"]) == 1
            assert (await u.api.put("/secrets/DB?user=bob", json={"value": SECRET})).status_code == 204
            assert [each["name"] for each in (await u.api.get("/secrets", headers=bob)).json()["items"]] == ["DB"]

    run(story())


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("TOKEN", {"value": 5}, 422),
        ("TOKEN", {"value": SECRET, "more": SECRET}, 422),
        ("TOKEN", {"value": SECRET + "\0"}, 422),
        ("no-name", {"value": SECRET}, 422),
        ("BEMA_CHANNEL", {"value": SECRET}, 422),
        ("TOKEN", [SECRET], 422),
        ("TOKEN", {"value": SECRET + "x" * 200_000}, 413),
    ],
)
def test_a_refusal_does_not_repeat_the_value(
    tmp_path: Path, name: str, body: Any, status: int, caplog: pytest.LogCaptureFixture
):
    async def story() -> None:
        async with up(tmp_path) as u:
            answer = await u.api.put(f"/secrets/{name}", json=body)
            assert answer.status_code == status
            assert SECRET not in answer.text
            assert (await u.api.get("/secrets")).json()["items"] == []

    run(story())
    assert SECRET not in caplog.text
