"""A zygote: an interpreter that has imported what the scripts of an environment import, and forks them.

Laws: it has one thread, runs nothing of a script, and holds nothing of what it forks: what an instance is given goes through
it as descriptors, unread. A fork is two: who is between them ends at once, so that the warden of the instance becomes a
child of the keeper, and the instance a child of its warden, as if the keeper had started both.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from . import fresh, sandbox
from .preload import Preloaded, Unfit

VARIABLE = "BEMA_ZYGOTE"  # the numbers of its socket, and of the file that says what it is for
_LONGEST = 64 * 1024
_MOST = 16  # descriptors that come with a request
_KEEPER = "bema_keeper"  # the name under which the keeper loads its own package
# what Init does not name
_NOT_THE_INSTANCE = ("report", "stdout", "stderr", "surroundings")


class Born(NamedTuple):
    """An instance that was forked: `descriptors` are those that Init names, by their names there."""

    descriptors: dict[str, int]
    report: int
    asked: float  # on the monotonic clock, which all processes share
    preloaded: Preloaded

    def fits(self, init: dict[str, Any]) -> bool:
        """Whether it is as if it had been started anew. Where not, who keeps it is told why."""
        try:
            why = self.preloaded.unfit(init)
            if why:
                _say(self.report, unfit=why)
            return not why
        finally:
            os.close(self.report)


def main() -> Born | None:
    """Serve forks, where this process was started for that. Returns in an instance that was born; None in any other."""
    if not (named := os.environ.pop(VARIABLE, "")):
        return None
    number, order = map(int, named.split(","))
    os.set_inheritable(number, False)
    end = socket.socket(fileno=number)
    with os.fdopen(order, "rb") as file:
        file.seek(0)
        order = json.load(file)
    # with all that they need, before the first line of a package
    keeper, warden = os.getppid(), _warden()
    return _serve(end, keeper, warden, _prepared(end, order))


def _prepared(end: socket.socket, order: dict[str, Any]) -> Preloaded:
    preloaded = Preloaded(lambda name: end.send(json.dumps({"importing": name}).encode()))
    if order["sandbox"] is not None:
        # also before: it could replace what confines its instances
        sandbox.enter(order["sandbox"])
    try:
        preloaded.load(order["modules"], order["platform"], frozenset(order["skipped"]))
    except Unfit as unfit:
        end.send(json.dumps({"unfit": unfit.module, "why": unfit.why}).encode())
        os._exit(0)
    # what collecting touches is copied in each fork: nothing of this is looked at again
    gc.collect()
    gc.freeze()
    end.send(json.dumps({"ready": True}).encode())
    return preloaded


def _serve(end: socket.socket, keeper: int, warden: Any, preloaded: Preloaded) -> Born:
    while True:
        data, ancillary, _, _ = end.recvmsg(_LONGEST, socket.CMSG_SPACE(4 * _MOST), socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)  # whoever asked for forks is gone
        request = json.loads(data)
        came = [number for *_, rights in ancillary for (number,) in struct.iter_unpack("i", rights)]
        descriptors = dict(zip(request["descriptors"], came, strict=False))
        # out of descriptors, it got some of them: the keeper sees the report end, and starts it otherwise
        if len(descriptors) == len(request["descriptors"]) and _forked(keeper, warden, request["name"], descriptors):
            # its number may come to be another file's, which would be closed with this
            end.detach()
            return _born(descriptors, request["asked"], preloaded)
        for number in came:
            os.close(number)


def _forked(keeper: int, warden: Any, name: str, descriptors: dict[str, int]) -> bool:
    """True in the instance."""
    report = descriptors["report"]
    try:
        between = os.fork()
    except OSError as error:
        _say(report, errno=error.errno, strerror=error.strerror)
        return False
    if between:
        os.waitpid(between, 0)
        return False
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        me = os.getpid()
        if watching := os.fork():
            # before it is the keeper's: among its children there is none that was not named
            _say(report, warden=watching)
            os._exit(0)
        warden.adopted(keeper, me)
        parent = os.getpid()
        child = os.fork()
    except OSError as error:
        _say(report, errno=error.errno, strerror=error.strerror)
        os._exit(1)
    except BaseException:  # noqa: BLE001 - a second zygote, or a second instance, would go on from here
        os._exit(1)
    if child:
        _watch(keeper, warden, name, child, report)
    warden.bind(parent)
    return True


def _watch(keeper: int, warden: Any, name: str, child: int, report: int) -> NoReturn:
    code = 1
    try:
        code = warden.watch(keeper, name, child, report)
    finally:
        os._exit(code)


def _born(descriptors: dict[str, int], asked: float, preloaded: Preloaded) -> Born:
    os.dup2(descriptors["stdout"], 1)
    os.dup2(descriptors["stderr"], 2)
    with os.fdopen(os.dup(descriptors["surroundings"]), "rb") as file:
        file.seek(0)
        fresh.surround(json.load(file))
    mine = {name: number for name, number in descriptors.items() if name not in _NOT_THE_INSTANCE}
    report = descriptors["report"]
    fresh.hold_only((report, *mine.values()))
    fresh.renew(preloaded.path, (_KEEPER,))
    os.environ["BEMA_CHANNEL"] = str(mine.pop("channel"))
    return Born(mine, report, asked, preloaded)


def _warden() -> Any:
    """The keeper's module of it, from beside us: what it takes to be watched is the keeper's to say."""
    folder = Path(__file__).resolve().parents[1] / "deploy" / "keeper"
    found = importlib.util.spec_from_file_location(
        _KEEPER, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if found is None or found.loader is None:
        raise SystemExit(f"bema: {folder} cannot be loaded")
    module = sys.modules[_KEEPER] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return importlib.import_module(f"{_KEEPER}.warden")


def _say(report: int, **what: object) -> None:
    with contextlib.suppress(OSError):
        os.write(report, json.dumps(what).encode() + b"\n")
