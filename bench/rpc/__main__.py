"""`python -m bench.rpc`: calls per second of our RPC and its peers, in one run, interleaved.

Every server and client process is up at once; a round visits every row for every peer, so that a noisy moment falls on
all. Clients are pinned to core 0 and servers to core 1, because where the kernel puts them changes a call alone on its
connection fourfold; the row "one core" has both on core 0. Exit 1 when a ratio named in `wanted` is missed, or a ceiling ten times over.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from bench.harness import Verdict, clean_environment, cpu_seconds, median, pin
from bench.rpc import installing
from bench.rpc.wanted import COMMON, MOST, ROWS, WANTED, Row

ROOT = Path(__file__).parents[2]

Figures = dict[str, dict[str, list[dict[str, float]]]]  # row -> peer -> one result per round
Table = dict[str, dict[str, dict[str, float]]]


class Candidate(NamedTuple):
    name: str
    python: str
    module: str  # of `peers`
    address: str
    more: tuple[str, ...] = ()
    every: bool = False  # runs the rows that are not common, too
    broker: tuple[str, ...] = ()  # what has to run beside it


class Up(NamedTuple):
    """A candidate whose two processes run."""

    server: subprocess.Popen[str]
    client: subprocess.Popen[str]
    every: bool
    beside: list[int]  # processes that serve with the server


def main() -> int:
    asked = argparse.ArgumentParser(prog="bench rpc")
    asked.add_argument("--json", type=Path, help="write the figures here")
    asked.add_argument("--rounds", type=int, default=11)
    asked.add_argument("--seconds", type=float, default=0.1, help="length of one measurement")
    asked.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="ray|NAME=PATH",
        help="Ray Serve, or a module as in peers/module.py",
    )
    asked.add_argument("--only", default="", help="comma-separated parts of the names of peers to run")
    asked.add_argument("--rows", default="", help="comma-separated parts of the names of rows to run")
    options = asked.parse_args()
    if strange := [peer for peer in options.peer if peer != "ray" and "=" not in peer]:
        asked.error(f"{strange[0]!r} is neither ray nor NAME=PATH")
    rows = {name: row for name, row in ROWS.items() if _chosen(name, options.rows)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bema-bench-")))
        listed = [c for c in candidates(folder, options.peer) if _chosen(c.name, options.only)]
        up = {c.name: started for c in listed if (started := stack.enter_context(running(c, folder))) is not None}
        figures = measured(up, rows, options.rounds, options.seconds)
    table = {row: {peer: summary(results) for peer, results in peers.items()} for row, peers in figures.items()}
    show(table)
    verdicts = judged(table)
    if options.json:
        options.json.write_text(json.dumps({"table": table, "ratios": [_as_data(v) for v in verdicts]}, indent=1))
    return 0 if all(verdict.met for verdict in verdicts) & within(table) else 1


def _chosen(name: str, parts: str) -> bool:
    return not parts or any(part.strip() in name for part in parts.split(","))


def candidates(folder: Path, named: list[str]) -> Iterator[Candidate]:
    own = sys.executable
    for name in ("ours", "bare"):
        yield Candidate(f"{name} unix", own, name, str(folder / f"{name}.sock"), every=name == "ours")
        yield Candidate(f"{name} tcp", own, name, _free_address(), every=name == "ours")
    for peer in named:
        name, given, path = peer.partition("=")
        where = str(Path(path).resolve())
        if given:
            yield Candidate(f"{name} unix", own, "module", str(folder / f"{name}.sock"), (where,), every=True)
            yield Candidate(f"{name} tcp", own, "module", _free_address(), (where,), every=True)
        elif (python := installing.python("ray")) is not None:
            yield Candidate("ray serve", str(python), "ray_serve", "-")
    if (python := installing.python("rpc")) is not None:
        yield Candidate("grpc.aio", str(python), "grpc_aio", _free_address())
        yield Candidate("dynamo", str(python), "dynamo", "-")
        host, _, port = (address := _free_address()).partition(":")
        broker = (str(python.with_name("nats-server")), "-a", host, "-p", port)
        yield Candidate("nats-py", str(python), "nats_py", address, broker=broker)


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def running(candidate: Candidate, folder: Path) -> Iterator[Up | None]:
    """The candidate's server on core 1 and its client on core 0; None, and a line on stderr, if one does not come up."""
    environment = clean_environment() | {
        "DYN_FILE_KV": str(folder / "kv"),
        "DYN_EVENT_PLANE": "zmq",
        "DYN_LOG": "error",
    }
    environment |= {"DYN_DISCOVERY_BACKEND": "file", "DYN_REQUEST_PLANE": "tcp"}
    (folder / "kv").mkdir(exist_ok=True)
    with ExitStack() as stack:
        beside: list[int] = []
        if candidate.broker:
            broker = subprocess.Popen(candidate.broker, stderr=subprocess.DEVNULL)
            stack.callback(_end, broker)
            pin(broker.pid, 1 % (os.cpu_count() or 1))
            _answering(candidate.address)
            beside = [broker.pid]
        ends = []
        for verb, core in (("serve", 1), ("drive", 0)):
            log = stack.enter_context((folder / f"{candidate.name}.{verb}.log").open("w"))
            command = [
                candidate.python,
                "-m",
                f"bench.rpc.peers.{candidate.module}",
                verb,
                candidate.address,
                *candidate.more,
            ]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=ROOT
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            if process.stdout.readline().strip() != "READY":
                print(f"{candidate.name}: {verb} did not start:\n{Path(log.name).read_text()[-2000:]}", file=sys.stderr)
                yield None
                return
            pin(process.pid, core % (os.cpu_count() or 1))
            ends.append(process)
        print(f"up: {candidate.name}", file=sys.stderr)
        yield Up(ends[0], ends[1], candidate.every, beside)


def _answering(address: str, within: float = 5.0) -> None:
    """Wait until somebody listens there."""
    host, _, port = address.partition(":")
    until = time.monotonic() + within
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.02)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def measured(up: dict[str, Up], rows: dict[str, Row], rounds: int, seconds: float) -> Figures:
    """Rounds over all rows and peers, after one to warm up."""
    figures: Figures = {}
    for number in range(-1, rounds):
        for row, order in rows.items():
            for peer, ends in up.items():
                if row not in COMMON and not ends.every:
                    continue
                result = ask(ends, order | {"seconds": seconds if number >= 0 else 0.05}, bare=peer.startswith("bare"))
                if result.get("error"):
                    print(f"{peer}, {row}: {result['error']}", file=sys.stderr)
                if number >= 0 and result["n"]:
                    figures.setdefault(row, {}).setdefault(peer, []).append(result)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return figures


def ask(ends: Up, order: Row, *, bare: bool) -> dict[str, Any]:
    """One measurement: the client's figures, with the CPU time of both processes."""
    if bare:
        order = order | {"op": "bytes" if order["op"] == "unary" else "none"}
    core = order.get("core")
    if core is not None:
        pin(ends.server.pid, core)
    serving = [ends.server.pid, *ends.beside]
    before = cpu_seconds(serving)
    assert ends.client.stdin is not None and ends.client.stdout is not None
    ends.client.stdin.write(json.dumps(order) + "\n")
    ends.client.stdin.flush()
    result: dict[str, Any] = json.loads(ends.client.stdout.readline())
    result["cpu"] += cpu_seconds(serving) - before
    if core is not None:
        pin(ends.server.pid, 1 % (os.cpu_count() or 1))
    return result


def summary(results: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds: operations per second, microseconds."""
    rates = [r["n"] / r["seconds"] for r in results]
    return {
        "rate": median(rates),
        "least": min(rates),
        "most": max(rates),
        "p50": median(r["p50"] for r in results),
        "p99": median(r["p99"] for r in results),
        "cpu": median(r["cpu"] / r["n"] * 1e6 for r in results),
    }


def show(table: Table) -> None:
    print("clients on core 0, servers on core 1; operations per second (least to most), microseconds")
    for row, peers in table.items():
        print(f"\n{row}")
        for peer, s in peers.items():
            spread = f"({s['least']:,.0f} to {s['most']:,.0f})"
            print(
                f"  {peer:16s}{s['rate']:>12,.0f}/s {spread:26s} p50 {s['p50']:>8,.0f}  p99 {s['p99']:>8,.0f}"
                f"  cpu {s['cpu']:>7,.1f}"
            )


def judged(table: Table) -> list[Verdict]:
    """The wanted ratios whose two figures were measured."""
    print()
    verdicts = []
    for wanted in WANTED:
        peers = table.get(wanted.row, {})
        if wanted.ours in peers and wanted.peer in peers:
            ours, peer = peers[wanted.ours], peers[wanted.peer]
            verdicts.append(Verdict(wanted, ours["rate"] / peer["rate"], peer["cpu"] / ours["cpu"]))
            print(verdicts[-1])
    return verdicts


def within(table: Table) -> bool:
    """Whether our own figures stay under their ceilings: ten times the figure decides, for machines differ and are shared."""
    good = True
    for row, figure, most in MOST:
        reached = table.get(row, {}).get("ours tcp", {}).get(figure)
        if reached is not None:
            good &= reached <= 10 * most
            mark = "met   " if reached <= most else "above " if reached <= 10 * most else "MISSED"
            print(f"{mark} {row:32s} {figure} {reached:.1f} us (at most {most:g})")
    return good


def _as_data(verdict: Verdict) -> dict[str, Any]:
    return {**verdict.wanted._asdict(), "reached": verdict.reached, "by_cpu": verdict.by_cpu, "met": verdict.met}


if __name__ == "__main__":
    raise SystemExit(main())
