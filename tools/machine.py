"""The first process of the bare machine: makes its mounts, starts one command in it, reaps, passes signals on.

    python3 -I machine.py PLAN      as root; PLAN is a JSON object, see `tools/bare.py`

Law: it lives in mount and pid namespaces of its own and dies with who started it: however it ends, the kernel takes the
mounts and every process with it. A signal to it reaches the command as Ctrl-C would, once.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

NEW_MOUNTS, NEW_PIDS = 0x00020000, 0x20000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
PARENT_DEATH = 1
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}

_libc = ctypes.CDLL(None, use_errno=True)


def main(plan: dict[str, Any]) -> int:
    """Fork the machine's pid 1, and be its shadow on this side."""
    die_with_the_parent()
    separate(NEW_MOUNTS | NEW_PIDS)
    first = start(lambda: live(plan))
    return ended(first, first)


def live(plan: dict[str, Any]) -> int:
    die_with_the_parent()
    os.chdir(plan["place"])
    root = furnish(plan)
    command = start(lambda: become(root, plan))
    return ended(command, -command)


def become(root: Path, plan: dict[str, Any]) -> int:
    """The command, as an ordinary user, leading a session as one that was typed does."""
    os.setsid()
    os.chroot(root)
    os.chdir(plan["folder"])
    os.umask(0o022)
    os.setgroups([])
    os.setgid(plan["user"])
    os.setuid(plan["user"])
    os.execvpe(plan["command"][0], plan["command"], plan["environment"])


# processes


def start(body: Any) -> int:
    """Fork; no signal is lost or doubled between the fork and the moment both sides know what to do with it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    pid = os.fork()
    if pid:
        return pid
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    try:
        code = body()
    except OSError as error:
        print(f"error: the bare machine: {error}", file=sys.stderr, flush=True)
        code = 3
    os._exit(code)


def ended(pid: int, told: int) -> int:
    """Reap whoever ends until `pid` has; signals go to `told`, a negative number being a group."""
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(told, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    while True:
        found, status = os.wait()
        if found == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def die_with_the_parent() -> None:
    _libc.prctl(PARENT_DEATH, signal.SIGKILL)


def separate(flags: int) -> None:
    if _libc.unshare(flags):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")


# mounts


def furnish(plan: dict[str, Any]) -> Path:
    """The root of the machine: what was made, below a layer that is forgotten, with the places a system has."""
    mount("none", "/", flags=RECURSIVE | PRIVATE)
    layer, root = Path("run/layer"), Path("run/root")
    mount("tmpfs", layer, "tmpfs", data="mode=755")
    for folder in (layer / "upper", layer / "work"):
        folder.mkdir(mode=0o755)
    # relative, because a comma or colon in the checkout's path would end an option
    mount("overlay", root, "overlay", data=f"lowerdir={plan['base']},upperdir={layer}/upper,workdir={layer}/work")
    for name, place in (("home", plan["home"]), ("tmp", "/tmp")):
        bind(Path("run", name), inside(root, place))
    mount("proc", inside(root, "/proc"), "proc")
    mount("sysfs", inside(root, "/sys"), "sysfs", READ_ONLY)
    give_devices(inside(root, "/dev"))
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if Path(name).exists():
            target = inside(root, name)
            target.unlink(missing_ok=True)
            shutil.copyfile(name, target)
    for place in map(Path, plan["places"]):
        target = inside(root, place)
        bind(place, target)
        mount("none", target, flags=BIND | REMOUNT | READ_ONLY)
    return root


def give_devices(folder: Path) -> None:
    """Nodes of the host, bound and not made: a container may make none."""
    mount("tmpfs", folder, "tmpfs", data="mode=755")
    for name in DEVICES:
        bind(Path("/dev") / name, folder / name)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    for name, kind, data in (("pts", "devpts", "newinstance,ptmxmode=0666,mode=620"), ("shm", "tmpfs", "mode=1777")):
        (folder / name).mkdir()
        mount(kind, folder / name, kind, data=data)


def inside(root: Path, place: str | Path) -> Path:
    return root / Path(place).relative_to("/")


def bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, flags=BIND | RECURSIVE)


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    if _libc.mount(*words, ctypes.c_ulong(flags), data.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or source} on {target}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        sys.exit(main(json.loads(sys.argv[1])))
    except OSError as error:
        print(f"error: the bare machine: {error.strerror}", file=sys.stderr)
        sys.exit(3)
