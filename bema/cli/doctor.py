"""`bema doctor`: looks for the usual trouble on this machine. Each check says what it found; a failed one, the remedy.

A check looks and leaves nothing behind. `note` is what can be lived with; only `fail` makes the exit code 1.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

import bema.core.version
from bema.cli import output
from bema.core import paths
from bema.core.errors import Refused
from bema.core.extras import install_line
from bema.core.settings import Settings, load
from bema.deploy.model.isolation import NONE, Isolation
from bema.runner import sandbox
from bema.runtime import folders
from bema.runtime.discovery import records

MIB = 1024 * 1024
EXTRAS = {
    "http": ("uvicorn", "starlette"),
    "platform": ("uvicorn", "starlette", "uv", "httptools", "a2wsgi", "python_multipart", "uvloop"),
    "packages": ("yaml",),
    "schedules": ("cronsim",),
}


class CheckResult(NamedTuple):
    """What one check found; `level` is ok, note or fail."""

    check: str
    level: str
    says: str
    fix: str = ""


Check = Callable[[Settings], CheckResult]


@click.command()
@output.json_option
def command(as_json: bool) -> None:
    """Look for the usual trouble on this machine."""
    settings = load()
    findings = [check(settings) for check in CHECKS]
    if as_json:
        output.print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            output.print_text(_shown(finding))
    if any(finding.level == "fail" for finding in findings):
        raise click.exceptions.Exit(1)


def _shown(finding: CheckResult) -> str:
    colour = {"ok": "green", "note": "yellow", "fail": "red"}[finding.level]
    head = f"{output.style(finding.level.ljust(4), fg=colour)}  {finding.check:12}  {finding.says}"
    return f"{head}\n      fix: {finding.fix}" if finding.fix else head


def python(settings: Settings) -> CheckResult:
    version = sys.version.split()[0]
    if sys.version_info < (3, 11):  # noqa: UP036 - an environment may be pointed at an older Python by hand
        return CheckResult("python", "fail", f"{version} at {sys.executable}", "Use Python 3.11 or newer.")
    return CheckResult("python", "ok", f"{version} at {sys.executable}")


def environments(settings: Settings) -> CheckResult:
    # Debian ships Python without it, and `python3 -m venv` fails
    found = importlib.util.find_spec("ensurepip")
    if found and found.origin:
        return CheckResult("venv", "ok", "this Python can make environments")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return CheckResult("venv", "note", "ensurepip is missing", f"sudo apt install python{version}-venv")


def uv(settings: Settings) -> CheckResult:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return CheckResult("uv", "ok", f"{done.stdout.split()[1]} at {found}")
    return CheckResult("uv", "fail", "not found: scripts cannot be deployed", install_line("platform"))


def gateway_port(settings: Settings) -> CheckResult:
    return _port(settings, "gateway")


def control_port(settings: Settings) -> CheckResult:
    return _port(settings, "control")


def _port(settings: Settings, listener: str) -> CheckResult:
    host, port = settings.text(f"{listener}.host"), settings.number(f"{listener}.port")
    name, where = f"{listener} port", f"{host}:{port}"
    if _is_ours(settings, where):
        return CheckResult(name, "ok", f"{where} is held by the platform that runs here")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # as `bema up` binds: a port whose last connections are closing is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        says = f"{where}: {error.strerror or error}"
        if settings.asked_for(f"{listener}.port"):
            return CheckResult(name, "fail", says, f"Stop what listens there, or set {listener}.port to another.")
        return CheckResult(
            name, "note", f"{says}; `bema up` takes a free one", f"Set {listener}.port to choose it yourself."
        )
    return CheckResult(name, "ok", f"{where} is free")


def _is_ours(settings: Settings, where: str) -> bool:
    try:
        up = json.loads((Path(settings.text("state_dir")) / "up.json").read_text())
    except (OSError, ValueError):
        return False
    return any(where in str(up.get(key, "")) for key in ("gateway", "api"))


def state(settings: Settings) -> CheckResult:
    folder = Path(settings.text("state_dir"))
    there = _nearest(folder)
    try:
        folders.look(folder)
    except Refused as error:
        return CheckResult("state", "fail", error.message, "Move what stands there away, or set BEMA_STATE_DIR.")
    try:
        with tempfile.TemporaryFile(dir=there):
            return CheckResult("state", "ok", f"{folder} {'is' if there == folder else 'can be made'} writable")
    except OSError as error:
        fix = f"Make {there} yours and writable, or set BEMA_STATE_DIR."
        return CheckResult("state", "fail", f"{folder}: {error.strerror or error}", fix)


def locks(settings: Settings) -> CheckResult:
    """A lock that a second opening of the same file can also take is no lock."""
    there = _nearest(paths.run_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as first, Path(first.name).open("rb") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _strangers() or CheckResult("flock", "ok", f"locks hold in {there}")
            says = f"{there}: two holders of one lock"
    except OSError as error:
        says = f"{there}: {error.strerror or error}"
    return CheckResult("flock", "fail", says, "Set BEMA_STATE_DIR to a folder on a local file system.")


def _strangers() -> CheckResult | None:
    """What holds its lock and cannot be judged from here, so that nobody here calls it."""
    folder = paths.discovery_dir()
    strange = list(records.strangers(folder)) if folder.is_dir() else []
    if not strange:
        return None
    says = "; ".join(map(records.of_stranger, strange[:3])) + (f"; {len(strange) - 3} more" if strange[3:] else "")
    fix = "Run services and callers in one PID namespace (docker run --pid=...), or give each its own BEMA_STATE_DIR."
    return CheckResult("flock", "note", says, fix)


def inotify(settings: Settings) -> CheckResult:
    if sys.platform != "linux":
        return CheckResult("inotify", "note", "not on this system: discovery polls, and is slower to notice")
    # asked of the kernel: the limit is per user, and editors use it up
    descriptor = ctypes.CDLL(None, use_errno=True).inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        says = f"{os.strerror(ctypes.get_errno())}: discovery polls, and is slower to notice"
        return CheckResult("inotify", "note", says, "Raise fs.inotify.max_user_instances with sysctl.")
    os.close(descriptor)
    return CheckResult("inotify", "ok", "changes are noticed at once")


def disk(settings: Settings) -> CheckResult:
    there = _nearest(Path(settings.text("state_dir")))
    free = shutil.disk_usage(there).free // MIB
    level = "ok" if free >= 1024 else "note" if free >= 100 else "fail"
    fix = "" if level == "ok" else "Free some space, or set BEMA_STATE_DIR to another disk."
    return CheckResult("disk", level, f"{free} MiB free at {there}", fix)


def clock(settings: Settings) -> CheckResult:
    """A clock that is behind the files of bema is wrong; a wrong one makes every download fail its certificate check."""
    installed = Path(bema.core.version.__file__).stat().st_mtime
    now = time.time()
    says = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now + 60 < installed:
        return CheckResult("clock", "fail", f"{says} is before bema was installed", "Set the clock.")
    return CheckResult("clock", "ok", says)


def extras(settings: Settings) -> CheckResult:
    lacking = {extra: [m for m in modules if not _importable(m)] for extra, modules in EXTRAS.items()}
    missing = [extra for extra, modules in lacking.items() if modules]
    if not missing:
        return CheckResult("extras", "ok", ", ".join(EXTRAS))
    needs = "; ".join(f"{extra} lacks {', '.join(lacking[extra])}" for extra in missing)
    return CheckResult("extras", "note", needs, install_line(*missing))


def isolation(settings: Settings) -> CheckResult:
    asked, level = Isolation.of(settings), sandbox.level()
    says = f"level {level}, of {', '.join(sandbox.LEVELS)}; deployed scripts have {asked.kind!r}"
    lacking = f"{says}; not contained: {'; '.join(sandbox.missing())}"
    if sandbox.LEVELS.index(level) < sandbox.LEVELS.index(asked.level):
        return CheckResult("isolation", "fail", lacking, "Lower isolation.kind, or use a newer kernel.")
    if asked.kind == NONE:
        return CheckResult("isolation", "note", f"{says}: your rights", "Take isolation.kind = none away.")
    if level != sandbox.LEVELS[-1]:
        return CheckResult("isolation", "note", lacking, "Deploy only scripts that you would run yourself.")
    return CheckResult("isolation", "ok", lacking)


CHECKS: tuple[Check, ...] = (
    python,
    environments,
    uv,
    gateway_port,
    control_port,
    state,
    locks,
    inotify,
    disk,
    clock,
    extras,
    isolation,
)


def _importable(module: str) -> bool:
    try:
        # looked for, not imported: an import runs code of others
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
