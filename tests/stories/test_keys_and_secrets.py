"""A user with a key of its own, and a function with a secret, on a platform that is up."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow

FIRST, SECOND = "first-of-7h1s-st0ry", "second-of-7h1s-st0ry"
TELLS = """
import os
print("started with", os.environ["TOKEN"])

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": os.environ["TOKEN"].encode()})
"""


def test_a_users_function_is_given_its_secret_and_the_next_value_of_it(platform: Platform, tmp_path: Path) -> None:
    platform.up()
    key = platform.bema("keys", "add", "laptop", "--user", "ada").stdout.strip()
    with httpx2.Client(timeout=60, trust_env=False, headers={"authorization": f"Bearer {key}"}) as ada:
        assert ada.put(f"{platform.api}/secrets/TOKEN", json={"value": FIRST}).status_code == 204
        body = {"name": "tells", "code": TELLS, "settings": {"secrets": ["TOKEN"]}}
        made = ada.post(f"{platform.api}/faas/python", json=body).json()
        assert made["owner"] == "ada"
        until("ready", lambda: ada.get(f"{platform.api}/faas/python/{made['id']}").json()["state"] == "ready", 120)
        assert ada.get(made["url"]).text == FIRST
        # the local user is an administrator, and says whose it is
        done = platform.bema("secret", "set", "TOKEN", "-", "--user", "ada", input=f"{SECOND}\n")
        assert done.returncode == 0, done.stderr
        until("the next value", lambda: ada.get(made["url"]).text == SECOND, 120)
        log = ada.get(f"{platform.api}/faas/python/{made['id']}/logs").text
        assert log.count("started with [secret]") == 2
        # in no file but its own, and nowhere in what the processes were started with
        held = [
            path.name for path in platform.state.rglob("*") if path.is_file() and b"7h1s-st0ry" in path.read_bytes()
        ]
        assert held == ["TOKEN"]
        platform.bema("keys", "revoke", "laptop")
        assert ada.get(f"{platform.api}/faas/python").status_code == 401


def test_a_key_outlives_the_platform(platform: Platform) -> None:
    platform.up()
    key = platform.bema("keys", "add", "ci", "--admin").stdout.strip()
    assert platform.stop() == 0
    platform.up()
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.Client(timeout=60, trust_env=False, headers=headers) as admin:
        until("let in", lambda: admin.get(f"{platform.api}/keys").status_code == 200, 120)
        assert [each["name"] for each in admin.get(f"{platform.api}/keys").json()["items"]] == ["ci"]
