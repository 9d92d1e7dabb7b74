"""From nothing to the first answer: a script behind the gateway, forked by a zygote or started from its file, beside `uv run`.

    python3 dev.py bench cold [--rounds N] [--json FILE]

Ours: the only instance of a function is killed and a request is made at the gateway at once; its answer comes from the next
instance, so that to notice the death is in it. `uv run`: from its start, environment cached, to the first answer at its port.
Rounds are interleaved, medians compared; exit 1 where a ratio is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from bench.harness import Verdict, Wanted, median
from tests.stories.harness import Platform

BLOCK = """# /// script
# requires-python = ">=3.11"
# dependencies = [{}]
# ///
"""
FASTAPI = (
    BLOCK.format('"fastapi", "uvicorn"')
    + """
from fastapi import FastAPI
app = FastAPI()

@app.get("/")
def root() -> dict[str, str]:
    return {"says": "hello"}
"""
)
MCP = (
    BLOCK.format('"mcp"')
    + """
from mcp.server.mcpserver import MCPServer
mcp = MCPServer("hello")

@mcp.tool()
def hello(name: str) -> str:
    return f"hello {name}"
"""
)
# what `uv run` needs beside, to serve the same at a port
SERVED = {
    "fastapi": 'import os, uvicorn\nuvicorn.run(app, port=int(os.environ["PORT"]), log_level="error")\n',
    "mcp": 'import os\nmcp.run("streamable-http", port=int(os.environ["PORT"]), json_response=True, stateless_http=True)\n',
}
SCRIPTS = {"fastapi": FASTAPI, "mcp": MCP}
WANTED = [Wanted("fastapi", "zygote", "uv run", 6.0), Wanted("mcp", "zygote", "uv run", 10.0)]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
}
ACCEPT = {"accept": "application/json, text/event-stream"}
PATIENCE = 60.0


def ask(http: httpx2.Client, kind: str, url: str) -> bool:
    """One request; whether it was answered as it should be."""
    try:
        if kind == "mcp":
            return http.post(f"{url.rstrip('/')}/mcp", json=INITIALIZE, headers=ACCEPT).status_code == 200
        return http.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def until(answered: Callable[[], Any], pause: float = 0.0005) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := answered()):
        if time.monotonic() > end:
            raise SystemExit(f"nothing came within {PATIENCE:g} s")
        time.sleep(pause)
    return found


def by_uv(http: httpx2.Client, kind: str, script: Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("uv")), "run", "--quiet", "--script", str(script)],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: ask(http, kind, f"http://127.0.0.1:{port}/"), 0.002)
        return (time.perf_counter() - began) * 1000
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Deployed:
    """Functions on a platform that keeps zygotes, or none."""

    def __init__(self, folder: Path, kind: str, **limits: int) -> None:
        folder.mkdir()
        self.kind = kind
        self.platform = Platform(folder / "state")
        self.platform.env |= {f"BEMA_LIMITS__{name.upper()}": str(value) for name, value in limits.items()}
        self.platform.up(seconds=PATIENCE)

    def deploy(self, script: str, number: int = 0) -> dict[str, Any]:
        return self.platform.deploy(f"{script}-{number}", SCRIPTS[script], seconds=600.0)

    def instance(self, made: dict[str, Any]) -> dict[str, Any]:
        with self.platform.http() as api:
            found: dict[str, Any] = api.get(f"/faas/python/{made['id']}").json()
            return found.get("instance") or {}

    def answer(self, http: httpx2.Client, script: str, made: dict[str, Any]) -> float:
        """Milliseconds from the death of its instance to the answer of the next."""
        old = until(lambda: (found := self.instance(made)).get("state") == "serving" and found, 0.05)
        began = time.perf_counter()
        os.kill(old["pid"], signal.SIGKILL)
        until(lambda: ask(http, script, made["url"]))
        return (time.perf_counter() - began) * 1000

    def started(self, made: dict[str, Any]) -> dict[str, str]:
        """How the one that serves was started, as its record says."""
        records = self.platform.json("ls")["instances"]
        return next((r["data"].get("start", {}) for r in records if r.get("deployment") == made["id"]), {})


def warm(deployed: Deployed, http: httpx2.Client, script: str, made: dict[str, Any]) -> None:
    """Until it is started as it is to be measured: a zygote is made when the first serves."""
    for _ in range(20):
        deployed.answer(http, script, made)
        if (found := deployed.started(made)).get("kind") == deployed.kind:
            return
        time.sleep(1.0)
    raise SystemExit(f"{script} is not started by {deployed.kind}: {found.get('why')}")


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    kinds = [
        Deployed(folder / "zygote", "zygote", restarts=10_000),
        Deployed(folder / "exec", "exec", restarts=10_000, zygote_memory=1),
    ]
    found: dict[str, Any] = {}
    try:
        with httpx2.Client(timeout=PATIENCE, trust_env=False) as http:
            for script, code in SCRIPTS.items():
                path = folder / f"served_{script}.py"  # by its own name it would be what it imports
                path.write_text(code + SERVED[script])
                made = {deployed.kind: deployed.deploy(script) for deployed in kinds}
                for deployed in kinds:
                    warm(deployed, http, script, made[deployed.kind])
                by_uv(http, script, path)
                took: dict[str, list[float]] = {"uv run": [], **{deployed.kind: [] for deployed in kinds}}
                for _ in range(rounds):
                    took["uv run"].append(by_uv(http, script, path))
                    for deployed in kinds:
                        took[deployed.kind].append(deployed.answer(http, script, made[deployed.kind]))
                found[script] = {"ms": took}
    finally:
        for deployed in kinds:
            deployed.platform.stop()
            deployed.platform.end()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--instances", type=int, default=0, help="instances of which memory is measured; 40 say something"
    )
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), chosen.rounds)
    medians = {script: {kind: median(took) for kind, took in rows["ms"].items()} for script, rows in found.items()}
    for script, rows in medians.items():
        for kind, value in rows.items():
            spread = f"({min(found[script]['ms'][kind]):.0f}-{max(found[script]['ms'][kind]):.0f})"
            print(f"{script:8s} {kind:8s} {value:8.1f} ms {spread}")
    verdicts = [Verdict(want, medians[want.row][want.peer] / medians[want.row][want.ours]) for want in WANTED]
    for verdict in verdicts:
        print(verdict)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    return 0 if all(verdict.met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
