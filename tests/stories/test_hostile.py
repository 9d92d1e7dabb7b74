"""A hostile script tries to get out, on a platform as a user has it: each way is a row, and says where it ends.

`docs/isolation.md` has the same rows as a user reads them. What no level contains is named there and not tried here.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import landlockpy
import pytest

from bema.core.settings import ISOLATION
from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow

STANDARD, FILTERED, STRICT = ISOLATION[1:]
FULL = landlockpy.abi_version() >= 6 and os.uname().machine in ("x86_64", "aarch64")
needs_full = pytest.mark.skipif(not FULL, reason="before Linux 6.12: what is contained at which level is documented")


class Attempt(NamedTuple):
    """`code` is run with `v`, what is known of the victims; it fails, or assigns to `got` what it got hold of."""

    code: str
    held_from: str = STANDARD
    network: str = "any"  # what must be asked for beside


LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
CALL = (
    LIBC
    + "def call(number, *a):\n    done = libc.syscall(number, *a)\n"
    + "    if done < 0: raise OSError(ctypes.get_errno(), 'refused')\n    return done or 'done'\n"
    + "import os; arm = os.uname().machine == 'aarch64'\n"
)

ATTEMPTS: dict[str, Attempt] = {
    # files of others
    "read the admin's token": Attempt("got = open(v['state'] + '/token').read()"),
    "list the state directory": Attempt("import os; got = os.listdir(v['state'])"),
    "read the store": Attempt("import glob; got = open(v['store'], 'rb').read(16)"),
    "list the logs": Attempt("import os; got = os.listdir(v['state'] + '/logs')"),
    "read what another has written": Attempt("got = open(v['home'] + '/secret').read()"),
    "write to what another has written": Attempt("got = open(v['home'] + '/secret', 'r+')"),
    "cut what another has written": Attempt("import os; os.truncate(v['home'] + '/secret', 0); got = 'cut'"),
    "delete what another has written": Attempt("import os; os.unlink(v['home'] + '/secret'); got = 'deleted'"),
    "move a file into another's home": Attempt(
        "import os; open('mine', 'w').close(); os.rename('mine', v['home'] + '/mine'); got = 'moved'"
    ),
    "link another's file into its own home": Attempt(
        "import os; os.link(v['home'] + '/secret', 'linked'); got = open('linked').read()"
    ),
    "follow a link of its own": Attempt(
        "import os; os.symlink(v['home'] + '/secret', 'leads'); got = open('leads').read()"
    ),
    "leave a socket in another's home": Attempt(
        "import socket; socket.socket(socket.AF_UNIX).bind(v['home'] + '/s'); got = 'bound'"
    ),
    "list its user's home": Attempt("import os, pwd; got = os.listdir(pwd.getpwuid(os.getuid()).pw_dir)"),
    "read a file of its user": Attempt("got = open(v['outside']).read()"),
    "write to the temporary folder of all": Attempt(
        "import os, tempfile; got = os.open(v['tmp'] + '/bema-was-here', os.O_CREAT | os.O_WRONLY)"
    ),
    "change its own version": Attempt("got = open(v['script'], 'a')"),
    "change what all instances import": Attempt("got = open(v['layer'] + '/bema/__init__.py', 'a')"),
    "change its interpreter": Attempt("import os; got = open(os.path.realpath(__import__('sys').executable), 'ab')"),
    "make a device of the disk": Attempt(
        "import os, stat; os.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(8, 0)); got = 'made'"
    ),
    "read the kernel's log": Attempt("import os; got = os.open('/dev/kmsg', os.O_RDONLY)"),
    "read the passwords": Attempt("got = open('/etc/shadow').read()"),
    # environment and processes of others
    "find the platform's variables in its own": Attempt("import os; got = os.environ.get('PLATFORM_SECRET')"),
    "read another's variables": Attempt("got = open(f\"/proc/{v['pid']}/environ\").read()"),
    "read the keeper's variables": Attempt("got = open(f\"/proc/{v['keeper']}/environ\").read()"),
    "read another's memory": Attempt("got = open(f\"/proc/{v['pid']}/mem\", 'rb')"),
    "see where another's memory is": Attempt("got = open(f\"/proc/{v['pid']}/maps\").read()"),
    "see what another has open": Attempt(
        "import os; folder = f\"/proc/{v['pid']}/fd\"\n"
        "got = [os.readlink(f'{folder}/{number}') for number in os.listdir(folder)]"
    ),
    "see files as another does": Attempt("import os; got = os.listdir(f\"/proc/{v['pid']}/root/\" + v['state'])"),
    "have another killed first": Attempt("got = open(f\"/proc/{v['pid']}/oom_score_adj\", 'w')"),
    "read another's command line": Attempt("got = open(f\"/proc/{v['pid']}/cmdline\").read()", STRICT),
    "inherit what is not its own": Attempt(
        "import os; parent = f'/proc/{os.getppid()}/fd'\n"
        "held = [os.readlink(f'{parent}/{number}') for number in os.listdir(parent)]\n"
        "got = [path for path in held if path.startswith(v['state']) and '/run/d/' not in path]"
    ),
    # tracing
    "trace another": Attempt(CALL + "got = call(117 if arm else 101, 16, v['pid'], 0, 0)"),
    "copy another's memory": Attempt(
        CALL + "room = ctypes.create_string_buffer(8)\n"
        "mine = (ctypes.c_size_t * 2)(ctypes.addressof(room), 8); theirs = (ctypes.c_size_t * 2)(0x400000, 8)\n"
        "got = call(270 if arm else 310, v['pid'], mine, 1, theirs, 1, 0)"
    ),
    "take another's descriptor": Attempt("import os\n" + CALL + "got = call(438, os.pidfd_open(v['pid']), 0, 0)"),
    # signals
    "signal another": Attempt("import os; os.kill(v['pid'], 0); got = 'signalled'"),
    "signal the keeper": Attempt("import os; os.kill(v['keeper'], 0); got = 'signalled'"),
    "signal another's group": Attempt("import os; os.killpg(v['pid'], 0); got = 'signalled'"),
    "signal another by a descriptor": Attempt(
        "import os, signal; signal.pidfd_send_signal(os.pidfd_open(v['pid']), 0); got = 'signalled'"
    ),
    "lower another's limits": Attempt(
        "import resource; got = resource.prlimit(v['pid'], resource.RLIMIT_CPU)", FILTERED
    ),
    "slow another down": Attempt("import os; os.setpriority(os.PRIO_PROCESS, v['pid'], 0); got = 'slowed'", STRICT),
    # sockets
    "speak to a name of others": Attempt(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0' + v['abstract']); got = 'connected'"
    ),
    "speak to a socket with a path": Attempt(
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect(v['unix']); got = 'connected'", STRICT
    ),
    "connect to a port": Attempt(
        "import socket; got = socket.create_connection(('127.0.0.1', v['port']), 10)", network="none"
    ),
    "send a datagram": Attempt(
        "import socket; got = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', v['port']))",
        network="none",
    ),
    "connect by another protocol": Attempt(
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n"
        "s.settimeout(10); s.connect(('127.0.0.1', v['port'])); got = 'connected'",
        network="none",
    ),
    "connect by what it sends": Attempt(
        "import socket; s = socket.socket(); s.settimeout(10)\n"
        "got = s.sendto(b'x', 0x20000000, ('127.0.0.1', v['port']))",
        network="none",
    ),
    "read packets": Attempt("import socket; got = socket.socket(17, socket.SOCK_RAW, 3)"),
    "share memory under a name": Attempt(
        "from multiprocessing import shared_memory as s; got = s.SharedMemory(create=True, size=1)", STRICT
    ),
    "share memory under a number": Attempt(CALL + "got = call(194 if arm else 29, 4711, 4096, 0o1600)", STRICT),
    # other views of the machine
    "mount a file system": Attempt(
        LIBC
        + "import os; assert libc.mount(b'none', os.environ['HOME'].encode(), b'tmpfs', 0, None) == 0; got = 'mounted'"
    ),
    "mount in a namespace of its own": Attempt(
        LIBC + "import os\n"
        "assert libc.unshare(0x10020000) == 0\n"
        "assert libc.mount(b'none', os.environ['HOME'].encode(), b'tmpfs', 0, None) == 0; got = 'mounted'"
    ),
    "enter another's namespace": Attempt(
        "import os\n" + LIBC + "got = os.open(f\"/proc/{v['pid']}/ns/mnt\", os.O_RDONLY)"
    ),
    "change its root": Attempt("import os; os.chroot('.'); got = 'changed'"),
    "name the machine": Attempt("import socket; socket.sethostname(socket.gethostname()); got = 'named'"),
    "become somebody else": Attempt("import os; os.setuid(1 if os.getuid() != 1 else 2); got = 'became'"),
    "gain rights by a program": Attempt(LIBC + "got = libc.prctl(39, 0, 0, 0, 0) == 0"),
    # large parts of the kernel
    "load a program into the kernel": Attempt(CALL + "got = call(280 if arm else 321, 0, 0, 0)", FILTERED),
    "queue calls past a filter": Attempt(CALL + "got = call(425, 1, ctypes.create_string_buffer(256))", FILTERED),
    "keep keys in the kernel": Attempt(CALL + "got = call(219 if arm else 250, 0, -3, 1)", FILTERED),
    "make a namespace of its own": Attempt(LIBC + "assert libc.unshare(0x10000000) == 0; got = 'made'", FILTERED),
    # what everybody shares
    "have more memory than there is for it": Attempt("got = bytearray(10 << 30)"),
    "write a file that is larger than its quota": Attempt(
        "import os; open('large', 'w').close(); os.truncate('large', 1 << 40); got = 'written'"
    ),
    "open more files than it may": Attempt("import os; got = [os.dup(0) for _ in range(70_000)]"),
    "raise its limits again": Attempt(
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)); got = 'raised'"
    ),
    "leave its memory on the disk": Attempt(
        "import resource; got = resource.getrlimit(resource.RLIMIT_CORE) != (0, 0)"
    ),
}

# each attempt in a process of its own: one that fails must not spoil the next
HOSTILE = '''
# /// script
# [tool.bema]
# isolation = "KIND"
# network = "NETWORK"
# ///
import asyncio, os, sys

TRY = """
import json, sys
v, got = json.loads(sys.argv[1]), None
try:
    exec(sys.argv[2])
except (OSError, MemoryError, AssertionError, ValueError) as error:
    print("held by", type(error).__name__, error)
else:
    print("got " + repr(got)[:80] if got else "held: nothing is there")
"""

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        part = await receive()
        body += part["body"]
        if not part.get("more_body"):
            break
    facts, _, code = body.decode().partition("\\0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", TRY, facts, code, cwd=os.environ["HOME"],
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said or f"ended with {process.returncode}".encode()})
'''
VICTIM = """
import os
from pathlib import Path
Path(os.environ["HOME"], "secret").write_text("of the victim")

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": os.environ["HOME"].encode()})
"""


def asked(url: str, seconds: float = 120.0, **how: Any) -> str:
    with httpx2.Client(timeout=seconds, trust_env=False) as client:
        answer = client.post(url, **how)
        assert answer.status_code == 200, answer.text
        return answer.text


class Scene:
    """A platform with a victim, and a hostile script of each kind."""

    def __init__(self, folder: Path) -> None:
        self.platform = Platform(folder / "state")
        del self.platform.env["BEMA_ISOLATION__WRITE"]
        self.platform.env["PLATFORM_SECRET"] = "of the platform"
        self.platform.up()
        self.made: dict[tuple[str, str], dict[str, Any]] = {}
        victim = self.victim = self.platform.deploy("victim", VICTIM)
        outside = folder / "outside"
        outside.write_text("of the user")
        self.abstract, self.unix, self.tcp = (
            socket.socket(socket.AF_UNIX),
            socket.socket(socket.AF_UNIX),
            socket.socket(),
        )
        name = f"bema-hostile-{os.getpid()}"
        self.abstract.bind("\0" + name)
        # a path of the test's own: that of pytest's folder is too long for a socket
        self.folder = tempfile.TemporaryDirectory(prefix="bema-hostile-")
        self.unix.bind(f"{self.folder.name}/s")
        self.tcp.bind(("127.0.0.1", 0))
        for listener in (self.abstract, self.unix, self.tcp):
            listener.listen(64)
        state = self.platform.state
        self.facts = {
            "state": str(state),
            "store": next(str(path) for path in state.rglob("*.sqlite")),
            "home": asked(victim["url"]),
            "pid": victim["instance"]["pid"],
            "keeper": self.platform.system("keeper"),
            "outside": str(outside),
            "tmp": tempfile.gettempdir(),
            "script": next(str(path) for path in state.rglob("versions/*/*.py")),
            "layer": next(str(path) for path in (state / "layers").iterdir() if path.is_dir()),
            "abstract": name,
            "unix": self.unix.getsockname(),
            "port": self.tcp.getsockname()[1],
        }

    def hostile(self, kind: str, network: str) -> dict[str, Any]:
        if (kind, network) not in self.made:
            code = HOSTILE.replace("KIND", kind).replace("NETWORK", network)
            self.made[kind, network] = self.platform.deploy(f"hostile-{kind}-{network}", code)
        return self.made[kind, network]

    def tried(self, attempt: Attempt, kind: str) -> str:
        url = self.hostile(kind, attempt.network)["url"]
        return asked(url, content=json.dumps(self.facts) + "\0" + attempt.code)

    def end(self) -> None:
        for listener in (self.abstract, self.unix, self.tcp):
            listener.close()
        self.folder.cleanup()
        self.platform.end()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("hostile"))
    try:
        yield made
    finally:
        made.end()


@needs_full
@pytest.mark.parametrize(
    ("way", "kind"),
    [(way, kind) for way, each in ATTEMPTS.items() for kind in ISOLATION[ISOLATION.index(each.held_from) :]],
)
def test_a_hostile_script_is_contained(scene: Scene, way: str, kind: str) -> None:
    said = scene.tried(ATTEMPTS[way], kind)
    assert said.startswith("held"), said


@needs_full
def test_what_is_tried_succeeds_where_nothing_is_contained(scene: Scene) -> None:
    """An attempt that fails everywhere shows nothing."""
    free = Platform(scene.platform.state.parent / "free")
    free.env["BEMA_ISOLATION__KIND"] = "none"
    try:
        url = free.up().deploy("free", HOSTILE.replace("KIND", "none").replace("NETWORK", "any"))["url"]
        for way in FREE:
            said = asked(url, content=json.dumps(scene.facts) + "\0" + ATTEMPTS[way].code)
            assert said.startswith("got"), (way, said)
    finally:
        free.end()


FREE = (
    *(
        "read the admin's token",
        "list the state directory",
        "read what another has written",
        "write to what another has written",
    ),
    *("link another's file into its own home", "read a file of its user", "change what all instances import"),
    *(
        "read another's variables",
        "see what another has open",
        "see where another's memory is",
        "read another's command line",
    ),
    *(
        "signal another",
        "signal the keeper",
        "lower another's limits",
        "slow another down",
        "speak to a name of others",
    ),
    *("speak to a socket with a path", "connect to a port", "send a datagram", "share memory under a name"),
    *("keep keys in the kernel", "make a namespace of its own"),
)
"""What any process of a user may do, whatever the kernel: the rest needs root, or another kernel."""


@needs_full
def test_the_level_is_demanded_and_shown(scene: Scene) -> None:
    made = scene.hostile(STRICT, "none")
    found = [i for i in scene.platform.json("ls")["instances"] if i.get("deployment") == made["id"]]
    assert found[0]["data"]["isolation"]["level"] == "full"
    assert found[0]["data"]["isolation"]["kind"] == STRICT
    (row,) = [line for line in scene.platform.bema("ls", "-v").stdout.splitlines() if found[0]["id"] in line]
    isolation, started = re.split(r"\s{2,}", row.rstrip())[-2:]
    assert (isolation, started.split()[0]) == ("strict at level full, network none", "exec")


@needs_full
def test_nobody_else_notices(scene: Scene) -> None:
    assert asked(scene.victim["url"]) == scene.facts["home"]
    assert Path(scene.facts["home"], "secret").read_text() == "of the victim"
    shown = scene.platform.reach(scene.victim["id"], "ready")
    assert shown["instance"]["pid"] == scene.facts["pid"]


FLOODS = """
import os, sys

async def app(scope, receive, send):
    if scope["type"] == "http":
        block = b"x" * (1 << 20)
        for _ in range(1024):
            os.write(1, block)
        os.write(1, b"\\nthe end of it\\n")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"flooded"})
"""


def test_a_line_of_a_gigabyte_leaves_a_bounded_log_and_costs_the_others_nothing(scene: Scene) -> None:
    made = scene.platform.deploy("floods", FLOODS)
    keeper = scene.platform.system("keeper")
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(asked, made["url"], 600.0)
        while not flooding.done():
            assert asked(scene.victim["url"]) == scene.facts["home"]
        assert flooding.result() == "flooded"
    folder = scene.platform.state / "logs" / made["id"]
    until("its last line is kept", lambda: "the end of it" in scene.platform.bema("logs", "floods").stdout, 60)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1 << 20
    status = Path(f"/proc/{keeper}/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) < 100 * 1024


FILLS = """
import os
number = 0
while True:
    with open(os.path.join(os.environ["TMPDIR"], str(number)), "wb") as file:
        file.write(bytes(1 << 20))
    number += 1
    if number == 1000:
        break
""" + VICTIM.partition("\n\n")[2]


def test_who_fills_the_disk_is_ended_with_the_reason(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "state")
    platform.env["BEMA_LIMITS__INSTANCE_DISK"] = str(16 << 20)
    try:
        platform.up()
        with platform.http() as api:
            made = api.post("/faas/python", json={"name": "fills", "code": "import os\n" + FILLS}).json()

        def ended() -> bool:
            with platform.http() as api:
                shown = api.get(f"/faas/python/{made['id']}").json()
            return "limits.instance_disk" in str(shown.get("error"))

        until("its quota is named", ended, 120)
    finally:
        platform.end()
