"""`dev.py up --check`: what a new user does with what `up` prints, done by a program.

Law: every address that is printed is asked until it answers as its kind answers, every command that is printed is pasted
into a shell in another folder, and then Ctrl-C ends all with 0. What is not as printed makes the exit code 1.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SOWN, ANSWER, DRAIN = 600.0, 60.0, 90.0
"""Seconds until every seed is told (its packages are downloaded), until an address answers, until all has ended."""

ADDRESS = re.compile(r"https?://[^\s\"'<>)]+")
MEDIA = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "dev.py", "version": "1"}},
}


class Wrong(Exception):
    """Something was printed that is not so."""


class Screen:
    """What a process prints: shown, and kept by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(line, end="", flush=True)
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """The last words, once it has ended."""
        self._reader.join(5.0)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()

    def until(self, what: str, seen: Callable[[list[str]], bool], seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or seen(self.lines), seconds)
            if not seen(self.lines):
                raise Wrong(f"{what} was not printed" + (": it ended" if self._ended else f" within {seconds:.0f} s"))


def check(command: list[str], environment: Mapping[str, str], program: Path) -> int:
    """Start `command`, do all that it prints, stop it."""
    process = subprocess.Popen([program, *command[1:]], env=dict(environment), stdout=subprocess.PIPE, text=True)
    screen = Screen(process)
    wrong: list[str] = []
    try:
        wrong = look(screen, environment)
    except Wrong as error:
        wrong.append(str(error))
    finally:
        code = stop(process)
        screen.close()
    if code:
        wrong.append(f"after Ctrl-C it ended with {code}")
    for line in wrong:
        print(f"error: {line}")
    print(f"up --check: {'FAILED' if wrong else 'every line works, and Ctrl-C ended it with 0'}", flush=True)
    return 1 if wrong else 0


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(DRAIN)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def look(screen: Screen, environment: Mapping[str, str]) -> list[str]:
    """What is not as it was printed."""
    screen.until("that it is up", lambda lines: any(line.startswith("seeds, ") for line in lines), ANSWER)
    sown = next(line for line in screen.lines if line.startswith("seeds, "))
    seeds = tuple(f"{name}: " for name in sown.partition("is up: ")[2].split(", "))
    screen.until(
        f"what became of each seed ({sown})",
        lambda lines: all(any(line.startswith(seed) for line in lines) for seed in seeds),
        SOWN,
    )
    token = Path(said(screen.lines, "token")).read_text().strip()
    listing = json.loads(answer(f"{said(screen.lines, 'api')}/faas/python", token)[1])
    kinds = {item["id"]: item["kind"] for item in listing["items"]}
    wrong = []
    for line in screen.lines:  # it grows meanwhile: hints follow the line of their seed
        if line.startswith(seeds) and ": ready " not in line:
            wrong.append(f"a seed is not ready: {line}")
        wrong += [
            f"{address} does not answer"
            for address in ADDRESS.findall(line)
            if not reached(address, line, kinds, token)
        ]
    return wrong + pasted([line.strip() for line in screen.lines if is_command(line)], environment)


def said(lines: list[str], name: str) -> str:
    return next(line.split()[1] for line in lines if line.startswith(f"  {name} "))


def reached(address: str, line: str, kinds: Mapping[str, str], token: str) -> bool:
    """Whether an address answers before its time is over."""
    kind = next((kind for id, kind in kinds.items() if address.endswith(id)), "")
    # the roots of the listeners, and of an app without a page there, say that they name nothing
    root = bool(kind) or line.startswith(("  gateway ", "  api "))
    end = time.monotonic() + ANSWER
    while True:
        if kind == "mcp":
            status, body = answer(f"{address}/mcp", token, HELLO)
            good = status == 200 and b"serverInfo" in body
        else:
            status, body = answer(address, token)
            good = 200 <= status < 400 or (root and status == 404)
        if good or time.monotonic() > end:
            print(f"  {status or 'silent'}  {address}{f' ({kind})' if kind else ''}", flush=True)
            return good
        time.sleep(0.25)


def answer(address: str, token: str, sent: Any = None) -> tuple[int, bytes]:
    """Status and beginning of the body; 0 where nothing answers."""
    body = None if sent is None else json.dumps(sent).encode()
    headers = {"Authorization": f"Bearer {token}", **(MEDIA if sent else {})}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(address, body, headers), timeout=30) as found:
            return found.status, found.read(65536)
    except urllib.error.HTTPError as error:
        return error.code, error.read(65536)
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode()


def is_command(line: str) -> bool:
    """All that is indented is one, but the rows of the box and what is told bare where there is no curl."""
    return bool(re.match(r"  (?!gateway |api |docs |token |https?:)\S", line))


def pasted(commands: list[str], environment: Mapping[str, str]) -> list[str]:
    """The commands that fail in a shell of their own, in a folder that knows nothing; what they deploy is taken away."""
    wrong = []
    with tempfile.TemporaryDirectory(prefix="bema-paste-") as folder:
        removing = [
            line.replace("deploy hello.py", "rm hello") for line in commands if line.endswith("deploy hello.py")
        ]
        for line in [*commands, *removing]:
            done = subprocess.run(
                ["sh", "-c", line], cwd=folder, env=dict(environment), capture_output=True, text=True, check=False
            )
            print(f"  exit {done.returncode}  {line}", flush=True)
            if done.returncode:
                wrong.append(f"`{line}` ended with {done.returncode}: {done.stderr.strip()}")
    return wrong
