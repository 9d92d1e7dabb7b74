"""Asking a process for its status, as the tests of it share it."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from typing import Any


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """(status, body) of one page."""
    return answer(urllib.request.Request(f"http://{host}:{port}{path}"))


def post(port: int, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """(status, what the JSON of the answer says) for a JSON body, or for bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **headers}
    status, text = answer(urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, sent, method="POST"))
    return status, json.loads(text)


def answer(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[str, float]:
    """Metric with labels -> value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
