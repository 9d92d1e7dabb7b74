"""The sandbox of one instance, entered from within before a line of the script runs, and left by nothing.

Law: what its launcher wanted is entered whole, or the instance ends with the reason; what this machine cannot do at all is
named by `missing`, and never left out silently. It may be entered again, by a fork of who has entered it: then both hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import landlock, rlimits, seccomp

LEVELS = ("basic", "files", "network", "full")
"""What the kernel can do, the least first.

basic: a group of its own, no privileges, limits. files: only named files. network: only named ports, and a filter of system
calls. full: no signals and no names of those outside.
"""

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _CLEAR_ALL = 38, 24, 47, 4
_CAPABILITIES = 0x20080522  # the version of capset's structures
_HIGHEST = 64
_NAMES = 53  # the port of name servers

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix", "/gnu")
# where resolv.conf leads to: replaced whenever the network changes, so the folders
_RESOLVERS = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd")
# of root's scripts, which could read the rest of it too
_ETC = (
    *("alternatives", "ca-certificates", "fonts", "gai.conf", "group", "host.conf", "hostname", "hosts", "inputrc"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "machine-id", "magic", "mime.types"),
    *("nsswitch.conf", "os-release", "passwd", "pki", "profile", "protocols", "resolv.conf", "services", "shells"),
    *("ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "debian_version"),
)
_KERNEL = ("cgroups", "cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "swaps", "sys", "uptime", "version")
_DEVICES = ("full", "null", "random", "urandom", "zero")
_MORE_DEVICES = ("tty", "ptmx", "pts", "dri", "kfd")
_PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/fs/cgroup", "/sys/kernel/mm")

_entered: list[str] = []  # kinds, in this process

_libc = ctypes.CDLL(None, use_errno=True)


class NotEntered(Exception):
    """The sandbox that was wanted cannot be entered; the text says why."""


def level() -> str:
    """What this kernel can do, as one of `LEVELS`."""
    if sys.platform != "linux" or not (known := landlock.abi()):
        return "basic"
    if known < landlock.CONNECTIONS or not seccomp.known():
        return "files"
    return "network" if known < landlock.SCOPES else "full"


def missing() -> list[str]:
    """What cannot be contained here, a phrase each with the reason."""
    found, lacking = LEVELS.index(level()), []
    if found < LEVELS.index("files"):
        lacking.append("files: the kernel has no Landlock (Linux 5.13), or was started without it")
    if found < LEVELS.index("network"):
        lacking.append("connections and system calls: they can be bounded from Linux 6.7 on, on x86_64 and aarch64")
    if found < LEVELS.index("full"):
        lacking.append("signals and abstract sockets: they can be withheld from Linux 6.12 on")
    if os.geteuid() == 0:
        lacking.append("the number of processes: the kernel does not bound root's")
    lacking.append("memory and processors of an instance as a whole: limits count each process, without cgroups")
    return lacking


def enter(wanted: dict[str, Any]) -> dict[str, Any]:
    """Enter what a launcher wanted; returns what was entered: its `kind`, the `level` of it, and what is `missing`.

    `wanted` has `kind` (not none), `level` (what the launcher found), `read` and `write` (paths), `withheld` (folders
    that are not read, though they lie in one that is), `connect` (ports, or None for all), `system_calls` (whether they are
    filtered) and `limits` (of `rlimits.lower`).

    Raises:
        NotEntered: it cannot be entered whole. Then the process must end.
    """
    found = level()
    if wanted["level"] not in LEVELS[: LEVELS.index(found) + 1]:
        raise NotEntered(f"isolation is {wanted['level']!r} for this launcher and {found!r} in this process")
    strict, lacking = wanted["kind"] == "strict", missing()
    try:
        # the kernel restricts threads, and one that runs already would stay free
        if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - numbers
            raise NotEntered("the process has several threads before its script runs")
        rlimits.lower(wanted["limits"])
        _give_up_privileges()
        if found != "basic":
            landlock.restrict(_given(wanted, strict=strict), wanted["connect"])
        if wanted["system_calls"]:
            seccomp.install(seccomp.Refusals(strict, *_withheld(wanted["connect"])))
    except (OSError, ValueError) as error:
        raise NotEntered(f"the sandbox cannot be entered: {error}") from error
    _entered.append(wanted["kind"])
    return {"kind": wanted["kind"], "level": found, "missing": lacking}


def explains(error: BaseException) -> str:
    """A sentence for who reads of a file that the sandbox may have withheld; empty where that is not why."""
    if not _entered or not isinstance(error, PermissionError) or not error.filename:
        return ""
    # the kernel does not say who refused: outside of its own folders it is the sandbox, as a rule
    return (
        f"bema: isolation {_entered[-1]!r} withholds files but its own (HOME, TMPDIR) and those that programs need;"
        f" isolation.read and isolation.write give it folders\n"
    )


def _withheld(ports: list[int] | None) -> tuple[bool, bool]:
    """Whether all that Landlock does not see leaving is withheld, and whether datagrams are: names are asked for by them."""
    return ports is not None, ports is not None and _NAMES not in ports


def _given(wanted: dict[str, Any], *, strict: bool) -> dict[str, int]:
    """Path -> rights: what of this machine a script needs, and what is its own."""
    own = [
        *sys.path,
        *_editable(),
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        sys.base_exec_prefix,
        str(Path(__file__).parent),
    ]
    read = [*_SYSTEM, *_RESOLVERS, *_PROCESSORS, *own, *wanted["read"]]
    # whoever is not root reads there what everybody may
    read += [f"/etc/{name}" for name in _ETC] if os.geteuid() == 0 else ["/etc"]
    devices, write = list(_DEVICES), list(wanted["write"])
    withheld = [os.path.realpath(folder) for folder in wanted["withheld"]]
    if strict:
        read += ["/proc/self", *(f"/proc/{name}" for name in _KERNEL)]
    else:
        # what of another process is secret there is withheld as tracing it is
        read += ["/proc", "/sys"]
        devices += [*_MORE_DEVICES, *(path.name for path in Path("/dev").glob("nvidia*"))]
        write += ["/dev/shm"] if not _holds("/dev/shm", withheld) else []
    return {
        "/proc": landlock.LIST,  # who is there is no secret, and asked for without opening anything, too
        **{path: rights for each in read if each not in ("", "/") for path, rights in _around(each, withheld)},
        **{f"/dev/{name}": landlock.DEVICE for name in devices},
        **dict.fromkeys(write, landlock.WRITE),
    }


def _around(path: str, withheld: list[str]) -> Iterator[tuple[str, int]]:
    """Paths with rights that come to all of `path` but what is withheld below it.

    A right to a folder is one to all that is in it: a checkout that is on `sys.path` may hold the platform's state.
    """
    real = os.path.realpath(path)
    if not _holds(real, withheld):
        yield path, landlock.READ
    elif real not in withheld:
        # its names can be listed, those below too: an import looks for a name before it opens anything
        yield path, landlock.LIST
        with contextlib.suppress(OSError), os.scandir(real) as entries:
            for entry in entries:
                if not entry.is_symlink():  # where it leads is not in the folder
                    yield from _around(entry.path, withheld)


def _holds(folder: str, others: list[str]) -> bool:
    return any(other == folder or other.startswith(folder.rstrip("/") + "/") for other in others)


def _editable() -> list[str]:
    """Packages that are installed for editing by a finder of setuptools, whose folders are on no path."""
    finders = [module for name, module in sys.modules.items() if name.startswith("__editable__")]
    return [str(path) for finder in finders for path in getattr(finder, "MAPPING", {}).values()]


def _give_up_privileges() -> None:
    """No program that it starts gives it any, and of root nothing is left but the name."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    with contextlib.suppress(OSError):  # a kernel without it has none to clear
        _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    for capability in range(_HIGHEST):
        # the highest differ by kernel; who may not drop them has none to pass on
        with contextlib.suppress(OSError):
            _prctl(_PR_CAPBSET_DROP, capability)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    if _libc.capset(ctypes.byref(header), ctypes.byref(sets)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
