"""`python -m bench.gateway`: requests per second through our data listener, nginx and an ASGI proxy, in one run.

One worker each, 64 connections, all up at once, rounds interleaved; a round visits every peer for every load, so that a
noisy moment falls on all of them. Exit 1 when a ratio named in `WANTED` is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS = ROOT / ".bench" / "gateway"
PEER_PACKAGES = ("aiohttp==3.14.5", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")
DEPLOYMENT = "0b9a7a3c-1111-4222-8333-123456789abc"
PREFIX = f"/gateway/{DEPLOYMENT}"
CONNECTIONS = 64
LOADS = {"ok": "/", "10k": "/10k"}
WANTED = {"nginx": 0.3, "asgi": 2.0}
"""Least requests per second of ours, as a share of the peer's, for small answers."""

Result = dict[str, dict[str, list[float]]]  # load -> peer -> one figure per round


def main() -> int:
    asked = argparse.ArgumentParser(prog="bench gateway")
    asked.add_argument("--json", type=Path, help="write the figures here")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--seconds", type=float, default=1.0, help="length of one load")
    options = asked.parse_args()
    missing = [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]
    if missing:
        print(f"not found: {', '.join(missing)}; apt-get install -y nginx-light wrk", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        ports = started(stack)
        results = measured(ports, options.rounds, options.seconds)
    table = summary(results)
    show(table)
    if options.json:
        options.json.write_text(json.dumps({"rounds": results, "summary": table}, indent=1))
    return 1 if missed(table) else 0


def started(stack: ExitStack) -> dict[str, int]:
    """Start backend and peers; returns their ports by name, ready to answer."""
    ports = dict(zip(("backend", "ours", "nginx", "asgi"), free_ports(4), strict=True))
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bema-bench-"))
    config = (HERE / "nginx.conf").read_text()
    for key, value in {"DIR": folder, "BACKEND": ports["backend"], "PORT": ports["nginx"], "PREFIX": PREFIX}.items():
        config = config.replace(f"@{key}@", str(value))
    nginx = Path(folder, "nginx.conf")
    nginx.write_text(config)
    backend = str(ports["backend"])
    for name, argv in {
        "backend": [sys.executable, str(HERE / "backend.py"), backend],
        "ours": [sys.executable, "-m", "bench.gateway.ours", str(ports["ours"]), backend, DEPLOYMENT],
        "nginx": ["nginx", "-c", str(nginx)],
        "asgi": [str(peer_python()), str(HERE / "asgi.py"), str(ports["asgi"]), backend, PREFIX],
    }.items():
        stack.enter_context(running(argv, Path(folder, f"{name}.log")))
        await_port(ports[name], name)
    return ports


def peer_python() -> Path:
    """The interpreter of the peers' environment, made on first use, outside the lock."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, PEERS], check=True)
        subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "-p", python, *PEER_PACKAGES], check=True)
    return python


def measured(ports: dict[str, int], rounds: int, seconds: float) -> Result:
    results: Result = {}
    peers = {name: port for name, port in ports.items() if name != "backend"}
    for path in LOADS.values():
        for port in peers.values():
            wrk(port, PREFIX + path, min(seconds, 0.5))
    for turn in range(rounds):
        for load, path in LOADS.items():
            for name, port in peers.items():
                results.setdefault(load, {}).setdefault(name, []).append(wrk(port, PREFIX + path, seconds))
        for name, port in peers.items():
            firsts = sorted(first_event(port, PREFIX + "/sse") for _ in range(50))
            results.setdefault("first event us", {}).setdefault(name, []).append(firsts[25])
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return results


def wrk(port: int, path: str, seconds: float) -> float:
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", f"http://127.0.0.1:{port}{path}"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"port {port} answered with errors:\n{out}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert found, out
    return float(found[1])


def first_event(port: int, path: str) -> float:
    """Microseconds from connecting to the first event."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET %b HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % path.encode())
        seen = b""
        while b"data: " not in seen:
            piece = client.recv(4096)
            if not piece:
                raise SystemExit(f"port {port} closed before the first event")
            seen += piece
    return (time.perf_counter() - begun) * 1e6


def summary(results: Result) -> dict[str, Any]:
    medians = {load: {name: statistics.median(row) for name, row in peers.items()} for load, peers in results.items()}
    ratios = {load: {name: peers["ours"] / peers[name] for name in WANTED} for load, peers in medians.items()}
    return {"medians": medians, "ratios": ratios, "wanted": WANTED}


def missed(table: dict[str, Any]) -> list[str]:
    return [
        f"ours / {name} = {table['ratios']['ok'][name]:.2f}, wanted {wanted}"
        for name, wanted in WANTED.items()
        if table["ratios"]["ok"][name] < wanted
    ]


def show(table: dict[str, Any]) -> None:
    print(f"{'':16}" + "".join(f"{name:>12}" for name in ("ours", *WANTED)) + "".join(f"  ours/{n}" for n in WANTED))
    for load, row in table["medians"].items():
        figures = "".join(f"{row[name]:12,.0f}" for name in ("ours", *WANTED))
        print(f"{load:16}{figures}" + "".join(f"{table['ratios'][load][n]:{7 + len(n)}.2f}" for n in WANTED))
    for line in missed(table):
        print("missed:", line)


@contextmanager
def running(argv: list[str], log: Path) -> Iterator[None]:
    """A process for the length of the block; what it says goes to `log` (the ASGI proxy complains of every closed stream)."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:  # uvicorn waits for streams that no one reads
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def await_port(port: int, name: str) -> None:
    """Until something listens: a peer says so in no other way."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"{name} did not listen on port {port}")


if __name__ == "__main__":
    sys.exit(main())
