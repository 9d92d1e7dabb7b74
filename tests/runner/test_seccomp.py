"""The filter of system calls: read as the kernel reads it, for both machines, and entered for real on this one."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from seccompy.syscalls import AARCH64_SYSCALLS, AUDIT_ARCH_AARCH64, AUDIT_ARCH_X86_64, X86_64_SYSCALLS

from bema.runner import seccomp
from bema.runner.seccomp import Refusals

NUMBERS = {"x86_64": X86_64_SYSCALLS, "aarch64": AARCH64_SYSCALLS}
ARCHITECTURES = {"x86_64": AUDIT_ARCH_X86_64, "aarch64": AUDIT_ARCH_AARCH64}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
NOTHING, ALONE, UNSEEN = Refusals(), Refusals(alone=True), Refusals(unseen=True)
NO_NETWORK = Refusals(unseen=True, datagrams=True)


def verdict(machine: str, refusals: Refusals, call: str | int, *arguments: int, architecture: int = 0) -> int:
    """What the filter says: classic BPF over `struct seccomp_data`."""
    number = NUMBERS[machine][call] if isinstance(call, str) else call
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *padded)
    lines, at, held = list(struct.iter_unpack("=HBBI", seccomp.program(machine, refusals))), 0, 0
    while True:
        code, then, otherwise, value = lines[at]
        at += 1
        match code:
            case 0x20:
                held = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                held &= value
            case 0x06:
                return int(value)
            case _:
                holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
                at += then if holds else otherwise


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request):
    return request.param


def test_every_number_is_that_of_its_name_in_the_headers_of_the_kernel():
    tables = (
        *(seccomp.REFUSED, seccomp.ALONE, seccomp._LOOKED_AT),
        *(seccomp._NAMING_A_PROCESS, seccomp._NAMING_A_THREAD),
    )
    for table in tables:
        for name, numbers in table.items():
            assert numbers[:2] == (X86_64_SYSCALLS[name], AARCH64_SYSCALLS[name]), name


def test_what_is_on_the_list_is_refused_and_what_any_script_does_is_not(machine):
    for name in seccomp.REFUSED:
        assert verdict(machine, NOTHING, name) == EPERM, name
    for name in ("read", "openat", "execve", "mmap", "futex", "socketpair", "accept4", "landlock_restrict_self"):
        assert {verdict(machine, how, name) for how in (NOTHING, ALONE, NO_NETWORK)} == {ALLOW}, name


def test_what_processes_of_a_user_share_under_numbers_is_refused_to_who_is_to_be_alone(machine):
    for name in seccomp.ALONE:
        assert (verdict(machine, NOTHING, name), verdict(machine, ALONE, name)) == (ALLOW, EPERM), name


def test_a_call_of_another_architecture_ends_the_process(machine):
    other = {"x86_64": ARCHITECTURES["aarch64"], "aarch64": ARCHITECTURES["x86_64"]}[machine]
    assert verdict(machine, NOTHING, "read", architecture=other) == KILL


def test_numbers_of_programs_with_short_pointers_are_no_calls():
    assert verdict("x86_64", NOTHING, 0x40000000 | X86_64_SYSCALLS["ptrace"]) == ENOSYS


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_a_process_starts_others_in_no_namespace_of_their_own(machine, flag):
    signal = 17
    assert verdict(machine, NOTHING, "clone", signal) == ALLOW
    assert verdict(machine, NOTHING, "clone", flag | signal) == EPERM
    assert verdict(machine, NOTHING, "clone3") == ENOSYS


def test_a_process_has_its_own_limits_looked_at_and_no_other_s(machine):
    assert verdict(machine, NOTHING, "prlimit64", 0) == ALLOW
    assert verdict(machine, NOTHING, "prlimit64", 4711) == EPERM


@pytest.mark.parametrize("name", list(seccomp._NAMING_A_THREAD))
def test_who_is_to_be_alone_changes_the_priority_of_itself_only(machine, name):
    position = seccomp._NAMING_A_THREAD[name][2]
    other = [0, 0]
    other[position] = 4711
    assert verdict(machine, ALONE, name, 0, 0) == ALLOW
    assert verdict(machine, ALONE, name, *other) == EPERM
    assert verdict(machine, NOTHING, name, *other) == ALLOW


def test_a_terminal_is_typed_into_by_nobody(machine):
    assert verdict(machine, NOTHING, "ioctl", 1, 0x5413) == ALLOW
    assert verdict(machine, NOTHING, "ioctl", 1, 0x5412) == EPERM


STREAM, DATAGRAM, RAW, CLOEXEC = 1, 2, 3, 0o2000000


@pytest.mark.parametrize(
    ("refusals", "allowed"),
    [
        (NOTHING, {"unix", "tcp", "tcp6", "udp", "udp6", "mptcp", "raw", "route"}),
        (ALONE, {"tcp", "tcp6", "udp", "udp6", "mptcp", "raw", "route"}),
        (UNSEEN, {"unix", "tcp", "tcp6", "udp", "udp6", "route"}),
        (NO_NETWORK, {"unix", "tcp", "tcp6", "route"}),
    ],
)
def test_a_socket_is_of_a_kind_that_can_be_answered_for(machine, refusals, allowed):
    kinds = {
        "unix": (1, STREAM, 0),
        "tcp": (2, STREAM | CLOEXEC, 0),
        "tcp6": (10, STREAM, 6),
        "udp": (2, DATAGRAM | CLOEXEC, 0),
        "udp6": (10, DATAGRAM, 17),
        "mptcp": (2, STREAM, 262),
        "raw": (2, RAW, 1),  # for root alone, which no instance is
        "route": (16, RAW, 0),
        "audit": (16, RAW, 9),
        "packet": (17, RAW, 0),
        "kernel cipher": (38, 5, 0),
        "host of a virtual machine": (40, STREAM, 0),
    }
    assert {name for name, kind in kinds.items() if verdict(machine, refusals, "socket", *kind) == ALLOW} == allowed


@pytest.mark.parametrize(("call", "position"), [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)])
def test_no_connection_is_made_by_its_first_data(machine, call, position):
    flags = [0] * position + [0x20000000]
    assert verdict(machine, NOTHING, call, *flags) == ALLOW
    assert verdict(machine, UNSEEN, call, *flags) == EPERM
    assert verdict(machine, UNSEEN, call, *[0] * position, 0x4000) == ALLOW


@pytest.mark.skipif(not seccomp.known(), reason="no filter for this machine")
def test_the_kernel_takes_the_filter_and_keeps_to_it():
    said = subprocess.run(
        [sys.executable, "-c", ENTERED, str(Path(seccomp.__file__).parents[2])],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout.split() == ["unix", "EPERM", "tcp", "fine", "udp", "EPERM", "thread", "ran", "process", "0"]


ENTERED = """
import errno, socket, subprocess, sys, threading
sys.path.insert(0, sys.argv[1])
from bema.runner import sandbox, seccomp

sandbox._give_up_privileges()
seccomp.install(seccomp.Refusals(alone=True, unseen=True, datagrams=True))
for name, kind in {"unix": (socket.AF_UNIX, 1), "tcp": (socket.AF_INET, 1), "udp": (socket.AF_INET, 2)}.items():
    try:
        socket.socket(*kind).close()
        print(name, "fine")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
threading.Thread(target=lambda: print("thread ran")).start()
print("process", subprocess.run(["true"]).returncode)
"""
