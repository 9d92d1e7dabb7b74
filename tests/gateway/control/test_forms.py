"""A script deployed as a form, as `curl --form user=foo --form data=@main.py` sends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from bema.core.errors import BemaError
from bema.gateway.control.requests import creation
from tests.gateway.control.test_app import CODE, run, up

CUT = b'--b\r\nContent-Disposition: form-data; name="data"; filename="x.py"\r\n\r\na = 1'
BOUND = {"content-type": "multipart/form-data; boundary=b"}


def test_the_form_of_the_design_deploys_a_file_for_a_user(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            for path in ("/faas/python", "/mcp-service"):
                answer = await u.api.post(
                    path, data={"user": path[1:4]}, files={"data": ("main.py", CODE.encode(), "text/x-python")}
                )
                made = answer.json()
                assert (answer.status_code, made["name"], made["owner"]) == (202, "main", path[1:4])
                assert answer.headers["location"] == f"/faas/python/{made['id']}"
                assert (await u.state(made["id"], "ready"))["name"] == "main"
            assert len((await u.api.get("/mcp-service?user=mcp")).json()["items"]) == 1

    run(story())


def test_a_form_without_a_file_names_the_deployment(tmp_path: Path):
    async def story() -> None:
        async with up(tmp_path) as u:
            answer = await u.api.post("/faas/python", data={"data": CODE, "name": "short"})
            assert (answer.status_code, answer.json()["name"]) == (202, "short")
            refused = await u.api.post("/faas/python", data={"data": CODE})
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_argument")
            assert "name" in refused.json()["error"]["message"]

    run(story())


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"data": {"user": "foo"}}, 422, "invalid_argument"),  # no data
        ({"data": {"data": CODE, "name": "x", "color": "red"}}, 422, "invalid_argument"),
        ({"data": {"data": "def (", "name": "x"}}, 422, "syntax_error"),
        ({"files": {"data": ("x.py", b"\xff")}}, 422, "syntax_error"),
        ({"files": [("data", ("x.py", b"a = 1")), ("data", ("y.py", b"a = 1"))]}, 400, "bad_request"),
        ({"content": CUT, "headers": BOUND}, 400, "bad_request"),
        ({"content": CUT + b"--b--", "headers": BOUND}, 400, "bad_request"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "bad_request"),
        ({"content": b"data=%ff&name=x", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 400, "bad"),
    ],
)
def test_a_form_that_does_not_fit_deploys_nothing(tmp_path: Path, sent: dict[str, Any], status: int, code: str):
    async def story() -> None:
        async with up(tmp_path) as u:
            answer = await u.api.post("/faas/python", **sent)
            assert answer.status_code == status, answer.text
            assert answer.json()["error"]["code"].startswith(code)
            assert (await u.api.get("/faas/python")).json()["items"] == []

    run(story())


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["multipart/form-data; boundary=b", "multipart/form-data", "a=b"]))
def test_no_body_of_a_form_is_our_fault(body: bytes, media: str):
    async def story() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(b"content-type", media.encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers, "query_string": b""}, receive)
        try:
            await creation(request, 1000)
        except BemaError as error:
            assert error.problem.http in (400, 422)

    run(story())
