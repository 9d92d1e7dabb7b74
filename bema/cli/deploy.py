"""`bema deploy`: a script becomes a service; waits until it is ready, or says why it will not be."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from bema.cli import api, output
from bema.core.errors import BemaError, Invalid, Unavailable, of_code
from bema.deploy.sources.names import name_of

# asked anew each time: what waits so outlives any part of the platform that is replaced
_POLL = 0.1
# one that died is back within a second
_ABSENCE = 10.0
_OVER = ("ready", "build_failed", "start_failed", "crash_loop")


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--name", help="Name of the deployment; the file's, if left out.")
@click.option("--env", "-e", "pairs", metavar="K=V", multiple=True, help="A variable of its environment. Repeatable.")
@click.option("--no-wait", is_flag=True, help="Return once it is accepted.")
@output.json_option
def command(file: Path, name: str | None, pairs: tuple[str, ...], no_wait: bool, as_json: bool) -> None:
    """Deploy a script and wait until it is ready.

    FILE is a Python script, with its dependencies in a PEP 723 block; - reads it from stdin.
    """
    begun = time.monotonic()
    found = _create(name or name_of(file), _code(file), _env(pairs))
    if not no_wait:
        found = _wait(found)
    # before the failure is raised: who reads data wants that of a failed one, too
    if as_json:
        output.print_json(found)
    if found["state"] in _OVER[1:]:
        raise failure(found)
    if not as_json:
        # alone on stdout: `curl $(bema deploy FILE)/path` is one line
        output.print_text(found["url"])
        output.note(_last_words(found, time.monotonic() - begun))


def _create(name: str, code: str, env: dict[str, str]) -> dict[str, Any]:
    try:
        return api.create(name, code, env)
    except KeyboardInterrupt:
        output.note(f"the request may have arrived: `bema ls` tells whether {name} is being deployed")
        raise


def _wait(found: dict[str, Any]) -> dict[str, Any]:
    try:
        with output.Progress() as progress:
            while found["state"] not in _OVER:
                progress.step(f"{found['name']} {found['state']}")
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


def _read(id: str) -> dict[str, Any]:
    """A part of the platform that is being replaced is no reason to stop waiting."""
    until = time.monotonic() + _ABSENCE
    while True:
        try:
            return api.read(id)
        except Unavailable as error:
            if error.code == "not_up" or time.monotonic() > until:
                raise
            time.sleep(_POLL)


def _last_words(found: dict[str, Any], passed: float) -> str:
    if found["state"] != "ready":
        return f"{found['name']} is {found['state']}; see `bema ls`"
    return (
        f"{found['name']} {found['version']} is ready after {passed:.1f} s; `bema logs {found['name']} -f` follows it"
    )


def failure(found: dict[str, Any]) -> BemaError:
    """What became of a deployment, as the error to end with: the resolver's text, or the last log lines."""
    said = found.get("error") or {}
    detail = [line for line in str(said.get("detail", "")).splitlines() if line.strip()]
    error = of_code(said.get("code") or found["state"], said.get("message", ""), log=[*detail, *said.get("log", ())])
    error.fix = said.get("fix") or error.fix
    return error


def _code(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{file}: {error.strerror}", code="not_found", fix="Name a file that can be read.") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is not UTF-8: byte {error.start}", code="syntax_error") from error


def _env(pairs: tuple[str, ...]) -> dict[str, str]:
    env = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Invalid(f"--env takes K=V, not {pair!r}")
        env[key] = value
    return env
