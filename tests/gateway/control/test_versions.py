"""Versions over HTTP: the next one, back again, shares, settings in place, what would change and what became of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.control.test_app import CODE, Up, run, up
from tests.gateway.control.test_keys import code, key_of


async def version(u: Up, id: str, label: str) -> dict[str, Any]:
    """The deployment once that version serves alone."""
    async with asyncio.timeout(30):
        while (info := (await u.api.get(f"/faas/python/{id}")).json())["version"] != label or info["state"] != "ready":
            await asyncio.sleep(0.01)
    found: dict[str, Any] = info
    return found


def test_a_deployment_is_changed_and_goes_back(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            made = await u.deploy(env={"MODE": "one"})
            path = f"/faas/python/{made['id']}"
            await version(u, made["id"], "v1")
            changed = await u.api.put(path, json={"code": "app = 2\n"}, headers={"idempotency-key": "k"})
            again = await u.api.put(path, json={"code": "app = 2\n"}, headers={"idempotency-key": "k"})
            assert (changed.status_code, again.json()) == (202, changed.json())
            await version(u, made["id"], "v2")
            told = (await u.api.get(f"{path}/versions")).json()["items"]
            assert [(each["version"], each["share"], each["current"]) for each in told] == [
                ("v2", 100, True),
                ("v1", 0, False),
            ]
            assert (await u.api.post(f"{path}/rollback", json={})).status_code == 202
            await version(u, made["id"], "v1")
            assert (await u.api.post(f"{path}/rollback", json={"version": "v2"})).status_code == 202
            await version(u, made["id"], "v2")
            assert (await u.api.post(f"{path}/rollback", json={"version": "v9"})).status_code in (404, 422)

    run(story())


def test_a_name_that_is_taken_is_replaced_by_who_says_so(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            made = await u.deploy()
            await version(u, made["id"], "v1")
            body = {"name": "hello", "code": "app = 2\n"}
            assert code(await u.api.post("/faas/python", json=body)) == (409, "name_taken")
            told = await u.api.post("/faas/python/dry-run", json={**body, "env": {"MODE": "two"}})
            assert told.status_code == 200, told.text
            assert {name: told.json()[name] for name in ("version", "code", "env_added")} == {
                "version": "v2",
                "code": True,
                "env_added": ["MODE"],
            }
            replaced = await u.api.post("/faas/python", json={**body, "replace": True})
            assert (replaced.status_code, replaced.json()["id"]) == (202, made["id"])
            await version(u, made["id"], "v2")

    run(story())


def test_requests_are_shared_out(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            made = await u.deploy()
            path = f"/faas/python/{made['id']}"
            await version(u, made["id"], "v1")
            await u.api.put(path, json={"code": "app = 2\n"})
            await version(u, made["id"], "v2")
            shared = await u.api.put(f"{path}/traffic", json={"shares": {"v1": 90, "v2": 10}, "sticky": "cookie:id"})
            assert shared.status_code == 202, shared.text
            assert shared.json()["traffic"] == {"v1": 90, "v2": 10}
            assert shared.json()["settings"]["sticky"] == "cookie:id"
            for wrong in ({"v1": 90}, {"v1": 101}, {"v1": -1, "v2": 101}, {"v7": 100}):
                assert (await u.api.put(f"{path}/traffic", json={"shares": wrong})).status_code in (404, 422)
            assert (await u.api.put(f"{path}/traffic", json={})).json()["traffic"] == {"v2": 100}

    run(story())


def test_settings_come_with_a_script_and_change_in_place(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            made = await u.deploy(settings={"timeout": 5, "memory": 64 * 1024**2})
            path = f"/faas/python/{made['id']}"
            assert made["settings"] == {"timeout": 5.0, "memory": 64 * 1024**2}
            await version(u, made["id"], "v1")
            changed = await u.api.patch(path, json={"timeout": 9})
            assert (changed.status_code, changed.json()["version"]) == (200, "v1")
            assert changed.json()["settings"]["timeout"] == 9.0
            for wrong in ({"memory": 128 * 1024**2}, {"timeout": 0}, {"colour": "red"}):
                assert (await u.api.patch(path, json=wrong)).status_code == 422
            refused = await u.api.post("/faas/python", json={"name": "x", "code": CODE, "settings": {"memory": "much"}})
            assert refused.status_code == 422
            assert "$.settings.memory" in refused.json()["error"]["message"]

    run(story())


def test_a_function_that_names_a_secret_is_given_it(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            ada = await key_of(u, "ada")
            body = {"name": "x", "code": CODE, "settings": {"secrets": ["TOKEN"]}}
            made = (await u.api.post("/faas/python", json=body, headers=ada)).json()
            failed = await u.state(made["id"], "start_failed")
            assert failed["error"]["code"] == "secret_missing"
            assert "TOKEN of ada" in failed["error"]["message"]
            await u.api.put("/secrets/TOKEN", json={"value": "s3cr3t"}, headers=ada)
            assert "s3cr3t" not in json.dumps(await u.state(made["id"], "ready"))
            assert u.platform.launcher.started[-1].secrets == {"TOKEN": "s3cr3t"}

    run(story())


def test_what_became_of_it_is_told_and_followed(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            made = await u.deploy()
            path = f"/faas/python/{made['id']}"
            await version(u, made["id"], "v1")
            past = [json.loads(line) for line in (await u.api.get(f"{path}/events")).text.splitlines()]
            assert past[-1]["state"] == "ready"
            later = f"{path}/events?follow=1&since={past[-1]['at']}"
            async with u.api.stream("GET", later) as following:
                await u.api.put(path, json={"code": "app = 2\n"})
                async for line in following.aiter_lines():
                    event = json.loads(line)
                    assert event["at"] > past[-1]["at"]
                    if (event["version"], event["state"]) == ("v2", "ready"):
                        break
            assert (await u.api.get(f"{path}/events?since={10**17}")).text == ""

    run(story())


def test_the_log_of_one_version_or_instance(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            made = await u.deploy()
            folder = tmp_path / "logs" / made["id"]
            folder.mkdir(parents=True)
            for label, instance in (("v1", "one"), ("v2", "two"), ("v2", "three")):
                record = {"ts": 1, "version": label, "instance": instance, "event": f"{label} {instance}"}
                (folder / f"{instance}.ndjson").write_text(json.dumps(record) + "\n")

            async def log(query: str) -> list[str]:
                text = (await u.api.get(f"/faas/python/{made['id']}/logs?{query}")).text
                return sorted(json.loads(line)["event"] for line in text.splitlines())

            assert await log("") == ["v1 one", "v2 three", "v2 two"]
            assert await log("version=v2") == ["v2 three", "v2 two"]
            assert await log("version=v1&tail=1") == ["v1 one"]
            assert await log("instance=three") == ["v2 three"]
            assert await log("instance=three&version=v1") == []

    run(story())


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("PUT", "", {"code": CODE}),
        ("PATCH", "", {}),
        ("GET", "/versions", None),
        ("POST", "/rollback", {}),
        ("PUT", "/traffic", {}),
        ("GET", "/events", None),
    ],
)
def test_somebody_elses_is_not_there(tmp_path: Path, method: str, rest: str, body: dict[str, Any] | None):
    async def story() -> None:
        async with up(tmp_path) as u:
            made, bob = await u.deploy(), await key_of(u, "bob")
            for id in (made["id"], "9b915dd4-6c9a-44e7-b569-c180dccbd949"):
                answer = await u.api.request(method, f"/faas/python/{id}{rest}", json=body, headers=bob)
                assert code(answer) == (404, "not_found")

    run(story())
