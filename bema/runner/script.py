"""Run the script: as a program, or as a module that is handed to its host."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import first_line, surroundings

MODULE = "__bema_script__"
_USAGE = 64


def main() -> None:
    started = time.monotonic()
    try:
        end = first_line.channel()
        init = first_line.read(end)
    except (first_line.NoInit, OSError) as error:
        sys.stderr.write(f"bema runner: {error}\n")
        raise SystemExit(_USAGE) from error
    surroundings.prepare(init)
    entry = init.get("entry") or {"kind": "main", "name": ""}
    script = Path(init["script"])
    if entry["kind"] == "main":
        # nobody reads the channel of a program: it is told by SIGTERM, and its launcher sees its end
        _shown(lambda: run(script))
        return
    phases = {"interpreter": _age(started), "init": _since(started)}
    module = _shown(lambda: load(script))
    phases["import"] = _since(started) - phases["init"]
    host = _resolve(init.get("host") or "")
    _shown(lambda: host({**init, "phases": phases}, end.detach(), module, entry))


def run(script: Path) -> None:
    """The script as `__main__`, in this process."""
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=str(script), __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = module
    exec(compile(script.read_bytes(), str(script), "exec", dont_inherit=True), module.__dict__)


def load(script: Path) -> types.ModuleType:
    """The script as a module; what stands under `if __name__ == "__main__"` does not run."""
    spec = importlib.util.spec_from_file_location(MODULE, script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
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
        trace = _of_the_script(error)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
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
    passed = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return max(0, round((passed - (time.monotonic() - started)) * 1000))
