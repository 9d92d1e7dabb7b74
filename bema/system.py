"""The composition root: what `bema up` checks, makes and hands over before it becomes the keeper.

Law: everything that can be refused is refused here, in one sentence, with nothing started and nothing left behind; from
the exec on, the keeper holds what was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

from bema.core import durable, files, paths
from bema.core.errors import Refused
from bema.core.extras import install_line
from bema.core.limits import Limits
from bema.core.settings import Settings
from bema.core.version import VERSION
from bema.deploy.keeper import listeners, roster
from bema.deploy.launch.isolation import lacks
from bema.deploy.model.isolation import Isolation
from bema.deploy.ports import PublicListener, bind, keep_ports, kept_ports
from bema.deploy.sources.names import name_of
from bema.deploy.store.deployments import FILE
from bema.jobs.service import unfinished
from bema.runtime.discovery import records
from bema.runtime.discovery.discovery import DiscoveryFactory
from bema.runtime.folders import prepare
from bema.state.engine import StateFactory

KEEPER = Path(roster.__file__).with_name("__main__.py")
_NEEDED = ("uvicorn", "starlette", "httptools", "a2wsgi", "python_multipart", "uv")
_KEEPERS = ("BEMA_CHANNEL", "BEMA_KEEPER", "BEMA_KEEPER_DESCRIPTORS")  # variables that the keeper sets
_OWN_START = 30.0  # a start limit meant for scripts must not end the platform


def up(settings: Settings, seeds: tuple[Path, ...] = ()) -> NoReturn:
    """Check, make, hand over. Does not return: this process becomes the keeper."""
    check_machine()
    check_discovery(settings)
    check_isolation(settings)
    state = prepare_state(Path(settings.text("state_dir")))
    try:
        lock = take_lock(state)
        StateFactory.choose().check(settings.of(StateFactory.group), FILE)
        # under the lock: what a dead keeper left is ended by one, and never while a keeper lives
        roster.clear(state / "keeper.json")
        listeners.sweep(paths.socket_dir())
        (state / "up.json").unlink(missing_ok=True)
        token = make_token(state)
        # the ports that nobody chose are kept, too: URLs that were given out outlive a restart
        kept = kept_ports(state)
        data, control = (bind(settings, name, kept.get(name)) for name in ("gateway", "control"))
        chosen = {"gateway": data.port, "control": control.port}
        keep_ports(
            state, kept | {name: port for name, port in chosen.items() if not settings.asked_for(f"{name}.port")}
        )
    except OSError as error:
        raise Refused(f"{error.filename or state}: {error.strerror}", code="state_unwritable") from error
    config = hand_over(
        settings,
        seeds,
        state=state,
        lock=lock,
        token=token,
        data=data,
        control=control,
        unfinished=asyncio.run(unfinished(settings)),
    )
    # it holds the environment: an argument could be read by every user here, and a file would stay
    descriptor = os.memfd_create("bema-config", 0)
    os.write(descriptor, json.dumps(config).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    for held in (lock, data.socket.fileno(), control.socket.fileno(), descriptor):
        os.set_inheritable(held, True)
    # -S: no `.pth` file runs code in the process that must outlive all others
    os.execv(sys.executable, [sys.executable, "-I", "-S", str(KEEPER), str(descriptor)])


def check_machine() -> None:
    if not sys.platform.startswith("linux"):
        raise Refused(
            f"`bema up` needs Linux, and this is {sys.platform}",
            fix="Services started by hand work here: `bema run FILE`.",
        )
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(
            f"`bema up` needs {', '.join(missing)}",
            code="missing_extra",
            fix=f"Install them: {install_line('platform')}",
        )


def check_isolation(settings: Settings) -> None:
    """What is asked for all scripts must be there: else each of them would fail, one after the other."""
    asked = Isolation.of(settings)
    if why := lacks(asked):
        raise Refused(f"isolation.kind is {asked.kind!r}: {why}", code="isolation_missing")


def check_discovery(settings: Settings) -> None:
    """The platform is several processes, and all of them must be able to look where its instances are shown."""
    discovery = DiscoveryFactory.choose()
    if not discovery.spans_processes:
        raise Refused(
            f"the discovery {DiscoveryFactory.registry.name_in_use()!r} is seen by one process alone,"
            " and `bema up` is several",
            code="bad_setting",
            fix="Take BEMA_DISCOVERY, or plugins.use in the settings, away.",
        )
    asyncio.run(_look(settings))


async def _look(settings: Settings) -> None:
    """What is not there is refused now, by its own sentence."""
    discovery = DiscoveryFactory.open(settings)
    try:
        await discovery.view()
    finally:
        await discovery.close()


def prepare_state(state: Path) -> Path:
    """The folders of state, runtime files and sockets, for their user alone."""
    for folder in (state, paths.run_dir(), paths.socket_dir()):
        prepare(folder)
    with contextlib.suppress(Refused):  # of another kind of discovery: nothing of ours is there
        prepare(paths.discovery_dir())
        records.set_aside(paths.discovery_dir())
    # permissions do not tell of a quota, nor of a disk that is full or mounted to be read
    probe = state / f".probe.{os.getpid()}"
    try:
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise Refused(f"{state} cannot be written: {error.strerror}", code="state_unwritable") from error
    return state


def take_lock(state: Path) -> int:
    """The lock that makes us the only platform on this state; held by being open."""
    path = state / "lock"
    # never removed: a new file could be locked beside the old one that somebody holds
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locks(lock, path):
            running = read_up(state)
            who = f" (process {running['pid']}, {running['gateway']})" if running else ""
            raise Refused(f"another `bema up`{who} holds {state}", code="already_up")
        _prove_flock(path)
    except Refused:
        os.close(lock)
        raise
    return lock


def _prove_flock(path: Path) -> None:
    """Some file systems let everybody lock."""
    other = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _locks(other, path):
            raise Refused(f"{path} can be locked twice: its file system has no working flock", code="no_flock")
    finally:
        os.close(other)


def _locks(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Refused(f"{path} cannot be locked: {error.strerror}", code="no_flock") from error
    return True


def is_up(state: Path) -> bool:
    """Whether somebody holds the state; looking takes nothing."""
    try:
        descriptor = os.open(state / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_up(state: Path) -> dict[str, Any]:
    """What the running platform says of itself; empty when it says nothing yet."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((state / "up.json").read_text())
        if isinstance(found, dict):
            return found
    return {}


def make_token(state: Path) -> Path:
    """The admin's token, made once: whoever reads the file sees all of it, and nobody else may read it."""
    path = state / "token"
    # an empty one, of a disk that was full, would let everybody in
    if not path.exists() or not path.read_bytes().strip():
        draft = state / f".token.{secrets.token_hex(8)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        draft.rename(path)
    path.chmod(0o600)
    return path


def hand_over(
    settings: Settings,
    seeds: tuple[Path, ...],
    *,
    state: Path,
    lock: int,
    token: Path,
    data: PublicListener,
    control: PublicListener,
    unfinished: bool = False,
) -> dict[str, Any]:
    """The keeper's configuration: plain data, all of it. `unfinished`: there are durable calls that may be due."""
    limits = settings.limits
    # resolved here and nowhere else: what `bema config show` prints is what the children go by
    told: dict[str, Any] = {
        **{name: value.value for name, value in settings.all().items()},
        "gateway_url": data.url,
        "api_url": control.url,
        "token_file": str(token),
        "seeds": [str(seed.absolute()) for seed in seeds],
        "program": program(state),
        # for instances, which connect to it without looking it up; made anew each time, as they are
        durable.SETTING: {"address": f"unix:{paths.socket_dir() / 'jobs.sock'}", "token": secrets.token_urlsafe(32)},
    }
    # the keeper listens there on its behalf: a caller waits while one is replaced by the next
    socket_path = paths.socket_dir() / "orchestrator.sock"
    return {
        "state": str(state),
        "lock": lock,
        "children": [
            _child(
                "orchestrator", "bema.deploy.orchestrator", state, told, limits, listen=f"unix:{socket_path}", link=True
            ),
            _child(
                "gateway",
                "bema.gateway",
                state,
                told,
                limits,
                listen_fds={"data": data.socket.fileno(), "control": control.socket.fileno()},
            ),
            _child(
                "jobs",
                "bema.jobs",
                state,
                told,
                limits,
                listen=told[durable.SETTING]["address"],
                token=told[durable.SETTING]["token"],
                on_demand=not unfinished,
                outlives=True,
            ),
        ],
        "up": {
            "gateway": data.url,
            "api": control.url,
            "token_file": str(token),
            "version": VERSION,
            "state": str(state),
        },
        "banner": banner(state, token, data.url, control.url, seeds),
        "log": {name: limits.named(f"log_{name}") for name in ("line", "file", "files")},
        "line": limits.channel_line,
        "start": max(_OWN_START, limits.start),
        "drain": limits.drain,
        "stop": limits.stop,
    }


def _child(name: str, module: str, state: Path, told: dict[str, Any], limits: Limits, **how: Any) -> dict[str, Any]:
    listen = how.get("listen")
    env = {key: value for key, value in os.environ.items() if key not in _KEEPERS}
    # what holds before Init comes, too: whatever said it, they all go by it
    env.update(limits.variables())
    # absolute, and decided once: a child works elsewhere, and must not find another platform's `.bema` from there
    env[paths.VARIABLE] = str(state) if paths.run_dir().parent == state else ""
    env[files.FOLDER_VARIABLE] = str(files.folder(os.environ).absolute())
    return {
        "name": name,
        # -P: it works in the state directory, and nothing there stands in for a module
        "argv": [sys.executable, "-P", "-m", module],
        "env": env,
        "cwd": str(state),
        "init": {
            "orchestrator_api": told["api_url"],
            "module_id": name,
            "env": {},
            "listen": listen.partition(":")[2] if listen else "",
            "name": name,
            "namespace": "bema",
            "auth_token": how.get("token", ""),
            "drain_ms": round(limits.drain * 1000),
            "settings": told,
        },
        "listen": listen,
        "listen_fds": how.get("listen_fds", {}),
        "link": how.get("link", False),
        "on_demand": how.get("on_demand", False),
        "outlives": how.get("outlives", False),
    }


def program(state: Path) -> str:
    """How to type `bema`, anywhere, so that it finds this platform."""
    ours = Path(sys.executable).with_name("bema")
    # another `bema` on PATH may be of another version, and knows another state
    found = shutil.which("bema")
    typed = "bema" if found and (not ours.exists() or Path(found).samefile(ours)) else shlex.quote(str(ours))
    return f"{paths.VARIABLE}={shlex.quote(str(state))} {typed}" if paths.run_dir().parent == state else typed


def banner(state: Path, token: Path, gateway: str, api: str, seeds: tuple[Path, ...] = ()) -> str:
    """Where everything is, and lines that can be pasted as they are into another terminal of this user."""
    bema = program(state)
    tried = [f"{bema} ls", f"{bema} new hello", f"{bema} deploy hello.py"]
    if shutil.which("curl"):
        tried.append(f'curl -H "Authorization: Bearer $(cat {shlex.quote(str(token))})" {api}/faas/python')
    lines = "\n".join(f"  {line}" for line in tried)
    sown = (
        f"\nseeds, what became of each is told here once the platform is up: {', '.join(map(name_of, seeds))}\n"
        if seeds
        else ""
    )
    return f"""bema {VERSION} is up; Ctrl-C stops it

  gateway  {gateway}
  api      {api}
  docs     {api}/docs
  token    {token}

try
{lines}
{sown}"""
