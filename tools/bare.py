"""The bare machine: a Debian with what the README asks for and nothing more, in which a new user's first hour is tried.

Law: it is made once, in `.bare/`, and never changed: a run works on a layer above it that is forgotten. What runs in it is
an ordinary user on a copy of the checkout: of the host it gets the kernel, the network and the way to the package
registries. Where it cannot be made that is said, and the exit code is 3.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tools import registries
from tools.terminal import say, stop

RELEASE = "bookworm"
PACKAGES = ("python3.11", "python3.11-venv", "ca-certificates")
# what apt installs with them: they depend on it by virtual names and by `:any`, which debootstrap does not follow
BROUGHT = ("python3-distutils", "python3")
MIRROR = "http://deb.debian.org/debian"
VERBS = ("up", "test")
USER, HOME = 1000, "/home/user"
UNMADE = 3
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"


def bare(root: Path, arguments: list[str]) -> int:
    """Run a verb of dev.py in the machine; its exit code is the verb's."""
    if not arguments or arguments[0] not in VERBS:
        stop(f"name one of: {', '.join(VERBS)}", "python3 dev.py bare up")
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        unmade("mounts and namespaces need root on Linux", f"sudo python3 dev.py bare {' '.join(arguments)}")
    place = root / ".bare"
    place.mkdir(exist_ok=True)
    with only_one(place) as lock:
        base = made(place, lock)
        run = place / "run"
        with fresh(run):
            copy_checkout(root, run / "home" / "bema")
            registries.give_to(run / "home", os.environ)
            own(run / "home")
            return enter(place, base, ["python3", "dev.py", *arguments])


def enter(place: Path, base: str, command: list[str]) -> int:
    """Run a command in the machine whose root is `base` in `place`, and whose home and /tmp are in `run`."""
    environment = {"HOME": HOME, "USER": "user", "LOGNAME": "user", "SHELL": "/bin/sh", "PATH": USER_PATH}
    plan = {
        "place": str(place),
        "base": base,
        "home": HOME,
        "folder": f"{HOME}/bema",
        "user": USER,
        "places": list(map(str, registries.places(os.environ))),
        "command": command,
        "environment": environment | registries.variables(os.environ),
    }
    words = [sys.executable, "-I", str(Path(__file__).with_name("machine.py")), json.dumps(plan)]
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    # a session of its own: a terminal's Ctrl-C comes to us alone, and is passed on once
    process = subprocess.Popen(words, start_new_session=True)
    before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in numbers}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_one(place: Path) -> Iterator[int]:
    import fcntl  # noqa: PLC0415 - not on Windows, where dev.py refuses after it has read this

    with (place / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another bare machine of this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def fresh(run: Path) -> Iterator[None]:
    """The folders of one run; what one that was killed left goes first."""
    remove(run)
    for name in ("home", "tmp", "layer", "root"):
        (run / name).mkdir(parents=True)
    (run / "tmp").chmod(0o1777)
    try:
        yield
    finally:
        remove(run)


def remove(folder: Path) -> None:
    """All of a folder; nothing at all where something is mounted below it: that would be emptied, too."""
    mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    held = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{folder}/")]
    if held:
        unmade(f"{held[0]} is still mounted", f"umount {held[0]}")
    shutil.rmtree(folder, ignore_errors=True)


# the machine


def made(place: Path, *held: int) -> str:
    """The name of the machine's root in `place`. The stamp is written last: what has none, or another, is made anew.

    debootstrap mounts what it needs in a namespace of its own, which goes with it however it ends; it inherits the lock
    that is `held`, so that nobody begins anew beside one that outlived us.
    """
    wanted = json.dumps({"release": RELEASE, "packages": (*PACKAGES, *BROUGHT)})
    stamp, root = place / "made.json", place / "machine"
    if stamp.exists() and stamp.read_text() == wanted:
        return root.name
    tool = shutil.which("debootstrap", path=SYSTEM_PATH)
    if tool is None:
        unmade("debootstrap is missing", "sudo apt install debootstrap")
    stamp.unlink(missing_ok=True)
    remove(root)
    address = mirror()
    say(f"making a bare Debian {RELEASE} in .bare, from {address}")
    command = [
        "unshare",
        "--mount",
        tool,
        "--variant=minbase",
        f"--include={','.join((*PACKAGES, *BROUGHT))}",
        RELEASE,
        str(root),
        address,
    ]
    with (place / "made.log").open("w") as log:
        environment = {**os.environ, "PATH": SYSTEM_PATH}
        code = subprocess.run(command, stdout=log, stderr=log, env=environment, pass_fds=held, check=False).returncode
    if code:
        said = (place / "made.log").read_text(errors="replace").splitlines()[-3:]
        unmade(f"debootstrap ended with {code}: {' / '.join(said)}", "look into .bare/made.log")
    with (root / "etc/passwd").open("a") as users:
        users.write(f"user:x:{USER}:{USER}::{HOME}:/bin/sh\n")
    with (root / "etc/group").open("a") as groups:
        groups.write(f"user:x:{USER}:\n")
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    draft = stamp.with_suffix(".new")
    draft.write_text(wanted)
    draft.rename(stamp)
    return root.name


def mirror(etc: Path = Path("/etc/apt")) -> str:
    """Where this host gets Debian from."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        for line in file.read_text(errors="replace").splitlines():
            found = re.match(r"(?:deb\s+(?:\[[^]]*\]\s*)?|URIs:\s*)(\S+/debian/?)(?:\s|$)", line)
            if found:
                return found[1].rstrip("/")
    return MIRROR


def copy_checkout(root: Path, target: Path) -> None:
    """What git would show of it: tracked files as they are now, and new ones that are not ignored."""
    listing = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(listing, cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        unmade("git is missing, which tells what the checkout holds", "sudo apt install git")
    if found.returncode:
        unmade(f"this is no git checkout: {found.stderr.decode(errors='replace').strip()}", "clone the repository")
    for name in sorted(filter(None, os.fsdecode(found.stdout).split("\0"))):
        source = root / name
        if source.is_symlink() or source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)


def own(folder: Path) -> None:
    for place, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            os.chown(Path(place, name), USER, USER, follow_symlinks=False)


def unmade(why: str, fix: str) -> NoReturn:
    stop(f"the bare machine cannot be made: {why}", fix, UNMADE)
