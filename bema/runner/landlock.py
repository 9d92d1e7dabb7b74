"""Landlock: what a process and all that it starts may open, connect to and signal (landlock(7)); entered once, never left.

Law: whatever the kernel can withhold is withheld, and only what is named is given back; a path that is not there is given
to nobody. What a kernel cannot withhold is for `sandbox.py` to tell.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1
_BENEATH, _PORT = 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_CONNECT_TCP = 1 << 1
_SCOPES = 1 << 0 | 1 << 1  # abstract sockets, signals

LIST = _READ_DIR
READ = _EXECUTE | _READ_FILE | _READ_DIR
DEVICE = _READ_FILE | _WRITE_FILE | _READ_DIR | _IOCTL_DEV
# no devices of its own: a node of the disk would be the whole disk
WRITE = ((1 << 16) - 1) & ~(_MAKE_CHAR | _MAKE_BLOCK)

CONNECTIONS, SCOPES = 4, 6
"""The ABI from which outbound TCP, and from which signals and abstract sockets, can be withheld."""

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """What the kernel knows of Landlock; 0 where it has none, or was started without it."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def restrict(given: dict[str, int], ports: Iterable[int] | None) -> None:
    """Withhold all files but `given` (path -> rights), and all TCP connections but to `ports`, where they are named.

    `OSError` where the kernel refuses. Only this thread is restricted: whoever calls it has no other.
    """
    known = abi()
    files = _known_to(known)
    net = _CONNECT_TCP if ports is not None and known >= CONNECTIONS else 0
    scopes = _SCOPES if known >= SCOPES else 0
    # a kernel reads no more of it than it knows; more of it must be zero
    attributes = (ctypes.c_uint64 * 3)(files, net, scopes)
    rules = _asked(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        for path, rights in given.items():
            _give(rules, path, rights & files)
        for port in ports or () if net else ():
            _asked(_ADD_RULE, rules, _PORT, ctypes.byref((ctypes.c_uint64 * 2)(_CONNECT_TCP, port)), 0)
        _asked(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _known_to(abi: int) -> int:
    """The rights over files that a kernel of that ABI withholds."""
    return (1 << (13 + (abi >= 2) + (abi >= 3) + (abi >= 5))) - 1


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def _give(rules: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there cannot be given
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        if rights:
            _asked(_ADD_RULE, rules, _BENEATH, ctypes.byref(_Beneath(rights, descriptor)), 0)
    finally:
        os.close(descriptor)


def _asked(number: int, *arguments: object) -> int:
    given = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    result = int(_libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result
