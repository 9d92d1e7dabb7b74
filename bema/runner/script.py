"""Run the script: as a program, or as a module that is handed to its host.

Law: what a file is taken for is a guess of who read it, and what it turns out to be decides. A file whose `app` nothing serves
runs as a program, in an interpreter that knows nothing of the first try; a file that serves by itself while it is imported
is served where it listens.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import first_line, imported, inspection, own_name, sandbox, surroundings
from .companion import Companion, main_thread_serves
from .listeners import free_port

if TYPE_CHECKING:
    from .zygote import Born

MODULE = "__bema_script__"  # where its own name is a module's that is loaded already
_USAGE = 64


def main(born: Born | None = None) -> None:
    """Run what the launcher says in Init, in a process that was started for it, or forked by a zygote."""
    started = time.monotonic()
    if again := surroundings.started_again():
        surroundings.prepare(again)
        own_name.offer(Path(again["script"]), again)
        _shown(lambda: run(Path(again["script"])))
        return
    try:
        end = first_line.channel()
        init = first_line.read(end)
    except (first_line.NoInit, OSError) as error:
        sys.stderr.write(f"bema runner: {error}\n")
        raise SystemExit(_USAGE) from error
    if born is not None:
        init |= born.descriptors
        if not born.fits(init):
            _again(init, end.detach())
    _enter_sandbox(init)
    port = surroundings.prepare(init)
    imports = init.pop("imports_fd", None)
    entry = init.get("entry") or {"kind": "main", "name": ""}
    script = Path(init["script"])
    own_name.offer(script, init)
    inspection.begin(init)
    if entry["kind"] == "main":
        if init.get("taken_for_app"):
            Companion(end, init, port, lambda: True).start()
        # else nobody reads the channel of a program: it is told by SIGTERM, and its launcher sees
        # its end
        imported.tell(imports, script)
        _shown(lambda: run(script))
        imported.tell(imports)
        return
    begun = {"interpreter": _age(started)} if born is None else {"fork": round((started - born.asked) * 1000)}
    phases = {**begun, "init": _since(started)}
    companion = Companion(end, init, port, main_thread_serves).start()
    module = _shown(lambda: load(script))
    if not companion.withdraw():
        return  # it served while it was imported, and has come to its end
    phases["import"] = _since(started) - phases["init"]
    host = _resolve(init.get("host") or "")
    imported.tell(imports)
    channel = end.detach()
    served = _shown(lambda: host({**init, "phases": phases}, channel, module, entry))
    imported.tell(imports)  # what was imported for requests, too
    if served is False:
        _again_as_program(init, channel)


def _enter_sandbox(init: dict[str, Any]) -> None:
    """Once: what this process becomes stays in it."""
    if wanted := init.pop("sandbox", None):
        try:
            sandbox.enter(wanted)
        except sandbox.NotEntered as error:
            sys.stderr.write(f"bema: not started: {error}\n")
            raise SystemExit(1) from error


def _again_as_program(init: dict[str, Any], channel: int) -> None:
    """The same process, as if it had been started for a program; its launcher is told by a companion."""
    program = {"listen": f"127.0.0.1:{free_port()}", "listen_fd": None, "taken_for_app": True}
    # in this interpreter the second run would meet the first: a metric that is registered already,
    # a table that is defined already, a port that the first still holds
    _again({**init, **program, "entry": {"kind": "main", "name": ""}}, channel)


def _again(init: dict[str, Any], channel: int) -> NoReturn:
    """The same process, from the start of the interpreter on."""
    first_line.keep(init, channel)
    for name in (*surroundings.PASSED, "secrets_fd"):
        if init.get(name) is not None:
            os.set_inheritable(init[name], True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run(script: Path) -> None:
    """The script as `__main__`, in this process."""
    # `runpy` would put its own frames and a temporary module in between, and take `__main__` back
    # at the end, while threads of the script still look it up
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=str(script), __builtins__=__builtins__, __cached__=None)
    # a pool's child runs the file of `__main__` before it unpickles: `__file__` must be the
    # script's
    sys.modules["__main__"] = module
    exec(compile(script.read_bytes(), str(script), "exec", dont_inherit=True), module.__dict__)


def load(script: Path) -> types.ModuleType:
    """The script as a module; what stands under `if __name__ == "__main__"` does not run.

    It bears the name of its file, so that a pool's child, which has the same path, imports it to find its classes.
    """
    name = MODULE if script.stem in sys.modules else script.stem
    spec = importlib.util.spec_from_file_location(name, script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # before it runs: dataclasses and pickles look the module up while its top level executes
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _resolve(name: str) -> Callable[..., object]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SystemExit(f"bema runner: the host {name!r} cannot be loaded: {error}") from error
    return found  # type: ignore[no-any-return]


def _shown(step: Callable[[], Any]) -> Any:
    """Run a step of the script; its failure goes to stderr, and so to its log, without our frames above it."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - the process edge
        # who reads the log wrote the script: our frames would be the first that they see
        trace = _of_the_script(error)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.stderr.write(sandbox.explains(error))
        sys.stderr.flush()
        raise SystemExit(1) from None


def _of_the_script(error: BaseException) -> types.TracebackType | None:
    here = str(Path(__file__).parent)
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename, here):
        trace = trace.tb_next
    return trace


def _is_ours(file: str, here: str) -> bool:
    return file.startswith(here) or file.startswith("<frozen importlib")


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _age(started: float) -> int:
    """Milliseconds from the process's start to the runner's first line, as the kernel's clock ticks allow."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
    # CLOCK_BOOTTIME is what the kernel counts start times in, suspension included
    passed = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return max(0, round((passed - (time.monotonic() - started)) * 1000))
