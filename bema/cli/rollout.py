"""Waiting for a version that comes up, and telling what became of it, for every command that asks for one."""

from __future__ import annotations

import time
from typing import Final

from bema.cli import api, output
from bema.core.errors import BemaError, Unavailable, of_code

# asked anew each time: what waits so outlives any part of the platform that is replaced
_POLL = 0.1
# one that died is back within a second
_ABSENCE = 10.0
_FAILED: Final = ("build_failed", "start_failed", "crash_loop")


def finish(found: api.Json, begun: float, *, wait: bool, as_json: bool) -> None:
    """Wait for what was accepted as `found`, and tell how it ended; raises the failure of a version that failed."""
    mine = rising(found)
    if wait:
        found = _wait(found, mine)
    # before the failure is raised: who reads data wants that of a failed one, too
    if as_json:
        output.print_json(found)
    if (failed := _failure(found, mine)) is not None:
        raise failed
    if not as_json:
        # alone on stdout: `curl $(bema deploy FILE)/path` is one line
        output.print_text(found["url"])
        output.note(_last_words(found, mine, time.monotonic() - begun))


def rising(found: api.Json) -> str:
    """The version that was asked for."""
    latest = found.get("latest")
    return str(latest["version"] if latest else found["version"])


def _wait(found: api.Json, mine: str) -> api.Json:
    try:
        with output.Progress() as progress:
            while (state := _state(found, mine)) not in (*_FAILED, "ready", ""):
                step = f": {found['progress']}" if found.get("progress") else ""
                progress.step(f"{found['name']} {state}{step}")
                time.sleep(_POLL)
                found = _read(found["id"])
    except KeyboardInterrupt:
        # who waits is all that ends here: the platform works on
        name = found["name"]
        output.note(
            f"{name} is still being deployed; `bema logs {name} -f` follows it, `bema ls` tells its state, "
            f"and `bema rm {name}` stops it"
        )
        raise
    return found


def _state(found: api.Json, mine: str) -> str:
    """The state of the version that is waited for; empty where another took its place."""
    latest = found.get("latest")
    if latest and latest["version"] == mine:
        # one that serves has its requests in a moment
        state = str(latest["state"])
        return "starting" if state == "ready" else state
    if found["version"] == mine:
        return str(found["state"])
    return "ready" if mine in found["traffic"] else ""


def _failure(found: api.Json, mine: str) -> BemaError | None:
    latest = found.get("latest")
    if latest and latest["version"] == mine and latest["state"] in _FAILED:
        serves = found["version"]
        output.note(f"{found['name']}: {mine} failed, and {serves} serves as before")
        return failure(latest)
    return failure(found) if found["version"] == mine and found["state"] in _FAILED else None


def _read(id: str) -> api.Json:
    """A part of the platform that is being replaced is no reason to stop waiting."""
    until = time.monotonic() + _ABSENCE
    while True:
        try:
            return api.read(id)
        except Unavailable as error:
            if error.code == "not_up" or time.monotonic() > until:
                raise
            time.sleep(_POLL)


def _last_words(found: api.Json, mine: str, passed: float) -> str:
    name, state = found["name"], _state(found, mine)
    if not state:
        return f"{name}: another version was asked for meanwhile; `bema versions {name}` lists them"
    if state != "ready":
        return f"{name} is {state}; see `bema ls`"
    share = found["traffic"].get(mine, 100)
    some = "" if share == 100 else f" with {share} % of the requests"
    return f"{name} {mine} is ready{some} after {passed:.1f} s; `bema logs {name} -f` follows it"


def failure(found: api.Json) -> BemaError:
    """What became of a deployment or a version, as the error to end with: the resolver's text, or the last log lines."""
    said = found.get("error") or {}
    detail = [line for line in str(said.get("detail", "")).splitlines() if line.strip()]
    error = of_code(said.get("code") or found["state"], said.get("message", ""), log=[*detail, *said.get("log", ())])
    error.fix = said.get("fix") or error.fix
    return error
