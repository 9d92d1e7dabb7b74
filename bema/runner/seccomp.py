"""Seccomp: system calls that no function needs, refused by a filter of the kernel (seccomp(2)); entered once, never left.

Law: what is refused is named here, by number for each architecture, and fails as for somebody who may not (`EPERM`); all
else is allowed, so that a new libc works. Calls of another architecture end the process: their numbers mean other calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _FILTER = 21, 22, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # where seccomp_data has them; arguments follow from 16 on
_X32 = 0x40000000

_NAMESPACES = 0x7E020000  # CLONE_NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWNS
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM, _TCP = 1, 2, 6
_FASTOPEN = 0x20000000

# name: number on x86_64, number on aarch64
REFUSED: dict[str, tuple[int, int]] = {
    # into other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "perf_event_open": (298, 241),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # other namespaces and other views of files
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # keys, and what the user's other processes share without a file
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # large parts of the kernel that are written for few
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # the machine itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "syslog": (103, 116),
    "vhangup": (153, 58),
}
ALONE: dict[str, tuple[int, int]] = {
    # memory and queues under numbers, which all processes of a user share
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
"""Refused beside, where a process is to be alone among those of its user."""
_NAMING_A_PROCESS: dict[str, tuple[int, int, int]] = {"prlimit64": (302, 261, 0)}
"""With the position of the argument that must be 0, which is the caller: the limits of another can be lowered until it dies."""
_NAMING_A_THREAD: dict[str, tuple[int, int, int]] = {
    "setpriority": (141, 140, 1),
    "ioprio_set": (251, 30, 1),
    "sched_setparam": (142, 118, 0),
    "sched_setscheduler": (144, 119, 0),
    "sched_setaffinity": (203, 122, 0),
    "sched_setattr": (314, 274, 0),
}
"""As much, where a process is to be alone: what a library asks for one of its threads fails, too, and is asked in vain."""
_LOOKED_AT: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "socket": (41, 198),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_libc = ctypes.CDLL(None, use_errno=True)


class Refusals(NamedTuple):
    """Beside the list. `alone`: no sockets with a path, nothing that is shared under a number; `unseen`: no connection by a
    way that Landlock does not look at; `datagrams`: no UDP."""

    alone: bool = False
    unseen: bool = False
    datagrams: bool = False


def known() -> bool:
    """Whether there is a filter for this machine, and a kernel that takes one."""
    return os.uname().machine in _MACHINES and _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def program(machine: str, refusals: Refusals) -> bytes:
    """The filter, as the kernel reads it. `KeyError` for a machine that there is none for."""
    column, architecture = _MACHINES[machine]
    calls = {name: numbers[column] for name, numbers in _LOOKED_AT.items()}
    lines = [
        _load(_ARCHITECTURE),
        *(_line(_EQUAL, architecture, 1, 0), _line(_RETURN, _KILL)),
        _load(_NUMBER),
        # numbers of the same machine for programs with short pointers: none of the list below would match
        *(_when(_AT_LEAST, _X32, _refuse(errno.ENOSYS)) if machine == "x86_64" else ()),
    ]
    for numbers in [*REFUSED.values(), *(ALONE.values() if refusals.alone else ())]:
        lines += _when(_EQUAL, numbers[column], _refuse())
    lines += _of(calls["clone"], _argument(0), _when(_ANY_OF, _NAMESPACES, _refuse()))
    # its flags lie in memory, where no filter looks: libc falls back on clone
    lines += _when(_EQUAL, calls["clone3"], _refuse(errno.ENOSYS))
    typed = [*_when(_EQUAL, _TIOCSTI, _refuse()), *_when(_EQUAL, _TIOCLINUX, _refuse())]
    lines += _of(calls["ioctl"], _argument(1), typed)
    for naming in [*_NAMING_A_PROCESS.values(), *(_NAMING_A_THREAD.values() if refusals.alone else ())]:
        lines += _of(naming[column], _argument(naming[2]), [_line(_EQUAL, 0, 1, 0), *_refuse()])
    lines += _of(calls["socket"], _argument(0), _families(refusals))
    if refusals.unseen:
        # data in the first packet connects without a connect, which is what Landlock looks at
        for name, position in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
            lines += _of(calls[name], _argument(position), _when(_ANY_OF, _FASTOPEN, _refuse()))
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def install(refusals: Refusals) -> None:
    """Enter it, for this thread and all that it starts. `OSError` where the kernel refuses."""
    code = program(os.uname().machine, refusals)
    filters = ctypes.create_string_buffer(code, len(code))
    header = _Program(len(code) // 8, ctypes.addressof(filters))
    if _libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(header), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.c_void_p))


def _families(refusals: Refusals) -> list[bytes]:
    """Of a socket's domain: Internet, routes and paths; no packets, no virtual machines' host, no rare protocol."""
    allow = [_line(_RETURN, _ALLOW)]
    internet = allow
    if refusals.unseen:
        # streams by another protocol than TCP are nothing that Landlock withholds
        datagrams = [] if refusals.datagrams else _when(_EQUAL, _DATAGRAM, allow)
        stream = [*_argument(2), *_when(_EQUAL, 0, allow), *_when(_EQUAL, _TCP, allow)]
        internet = [*_argument(1), _line(_AND, 0xF), *datagrams, *_when(_EQUAL, _STREAM, stream), *_refuse()]
    return [
        *_when(_EQUAL, _UNIX, _refuse() if refusals.alone else allow),
        *_when(_EQUAL, _INET, internet),
        *_when(_EQUAL, _INET6, internet),
        *_when(_EQUAL, _NETLINK, [*_argument(2), *_when(_EQUAL, 0, allow)]),
        *_refuse(),
    ]


def _of(number: int, argument: list[bytes], lines: list[bytes]) -> list[bytes]:
    """Lines for one call alone; the number is lost to those that follow, so they end."""
    return _when(_EQUAL, number, [*argument, *lines, _line(_RETURN, _ALLOW)])


def _when(test: int, value: int, lines: list[bytes]) -> list[bytes]:
    return [_line(test, value, 0, len(lines)), *lines]


def _refuse(number: int = errno.EPERM) -> list[bytes]:
    return [_line(_RETURN, _ERRNO | number)]


def _argument(position: int) -> list[bytes]:
    """The lower half of an argument: both machines are little-endian, and no flag or domain is longer."""
    return [_load(16 + 8 * position)]


def _load(offset: int) -> bytes:
    return _line(_LOAD, offset)


def _line(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
