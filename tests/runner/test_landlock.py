"""The rights that are withheld, held to the oracle's table of what each kernel knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import landlockpy
import pytest
from landlockpy import AccessFS, AccessNet, Scope

from bema.runner import landlock

PATHS = str(Path(landlock.__file__).parents[2])
needs_landlock = pytest.mark.skipif(not landlockpy.supported(), reason="the kernel has no Landlock")


def test_the_kernel_is_asked_as_the_oracle_asks_it():
    assert landlock.abi() == landlockpy.abi_version()


@pytest.mark.parametrize("abi", range(1, 8))
def test_of_files_a_kernel_withholds_all_that_it_knows(abi):
    assert landlock._known_to(abi) == int(landlockpy.fs_for_abi(abi))


def test_connections_and_names_of_others_are_withheld_from_the_abi_on_that_has_them():
    assert landlock._CONNECT_TCP == AccessNet.CONNECT_TCP
    assert landlock._SCOPES == Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL
    assert AccessNet.CONNECT_TCP in landlockpy.net_for_abi(landlock.CONNECTIONS)
    assert AccessNet.CONNECT_TCP not in landlockpy.net_for_abi(landlock.CONNECTIONS - 1)
    assert Scope.SIGNAL in landlockpy.scope_for_abi(landlock.SCOPES)
    assert Scope.SIGNAL not in landlockpy.scope_for_abi(landlock.SCOPES - 1)


def test_what_is_given_back_is_what_its_name_says():
    assert landlock.READ == AccessFS.EXECUTE | AccessFS.READ_FILE | AccessFS.READ_DIR
    assert landlock.LIST == AccessFS.READ_DIR
    assert landlock.DEVICE == AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.READ_DIR | AccessFS.IOCTL_DEV
    assert landlockpy.fs_for_abi(7) & ~(AccessFS.MAKE_CHAR | AccessFS.MAKE_BLOCK) == landlock.WRITE


@needs_landlock
def test_only_what_is_named_is_left(tmp_path):
    for name in ("seen", "kept", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    said = subprocess.run(
        [sys.executable, "-c", RESTRICTED, PATHS, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.splitlines() == [
        "read seen: yes",
        "write seen: no",
        "read kept: yes",
        "write kept: yes",
        "read hidden: no",
        "write hidden: no",
        "list all: no",
        "one file: yes",
    ]


RESTRICTED = """
import ctypes, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from bema.runner import landlock

folder = Path(sys.argv[2])
(folder / "one").write_text("1")
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
given = {folder / "seen": landlock.READ, folder / "kept": landlock.WRITE, folder / "one": landlock.WRITE}
landlock.restrict({**{str(path): rights for path, rights in given.items()}, "/not/there": landlock.WRITE}, None)

def tried(what, act):
    try:
        act()
        print(f"{what}: yes")
    except PermissionError:
        print(f"{what}: no")

for name in ("seen", "kept", "hidden"):
    tried(f"read {name}", (folder / name / "file").read_text)
    tried(f"write {name}", lambda: (folder / name / "file").write_text("written"))
tried("list all", lambda: list(folder.iterdir()))
tried("one file", lambda: (folder / "one").write_text("2"))
"""


@pytest.mark.skipif(landlockpy.abi_version() < landlock.CONNECTIONS, reason="before Linux 6.7")
def test_only_named_ports_are_connected_to():
    said = subprocess.run(
        [sys.executable, "-c", CONNECTING, PATHS], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == ["named", "connected", "other", "PermissionError", "listens"]


CONNECTING = """
import ctypes, socket, sys
sys.path.insert(0, sys.argv[1])
from bema.runner import landlock

named, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
landlock.restrict({"/": landlock.WRITE}, [named.getsockname()[1]])
for name, server in {"named": named, "other": other}.items():
    try:
        socket.create_connection(server.getsockname(), 10).close()
        print(name, "connected")
    except OSError as error:
        print(name, type(error).__name__)
socket.create_server(("127.0.0.1", 0)).close()
print("listens")
"""
