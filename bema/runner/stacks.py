"""Where every thread and every task of this process stands, as data, with the lines of its source.

Laws: nothing is imported for it, since what hangs may hang in an import; and nothing of the script is called: what it
made of its own names cannot fail the answer.
"""

from __future__ import annotations

import itertools
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

OURS = "bema-"  # how threads of ours are called: they are not shown
_DEEPEST = 100  # frames of a stack, the innermost
_MOST = 200  # threads, and tasks
_TEXT = 200  # characters of a line
_LARGEST = 4 * 1024 * 1024  # bytes of a file that lines are shown of
_ONLY_TREE = 0x400  # ast.PyCF_ONLY_AST: the tree without the import


def everything(folder: str) -> dict[str, Any]:
    """The threads, the main one first, and the tasks; of what lies in `folder` a frame says that it is the script's own."""
    frames, sources = sys._current_frames(), Sources(folder)
    main = threading.main_thread().ident
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    shown = [each for each in frames if not names.get(each, "").startswith(OURS)]
    shown.sort(key=lambda ident: ident != main)
    return {
        "threads": [
            {
                "name": names.get(ident) or f"thread {ident}",
                "main": ident == main,
                "idle": _waits_in_a_loop(frames[ident]),
                "frames": sources.shown(outward(frames[ident])),
            }
            for ident in shown[:_MOST]
        ],
        "tasks": [_of_task(task, loop, sources) for task, loop in itertools.islice(_tasks(frames), _MOST)],
    }


def outward(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    """From the innermost frame on; the runner's own, outermost, are left out."""
    while frame is not None and frame.f_globals.get("__package__") != __package__:
        yield frame
        frame = frame.f_back


def _waits_in_a_loop(frame: types.FrameType) -> bool:
    """Whether a thread's event loop waits for something to happen: where its tasks stand is what tells then."""
    name = str(frame.f_globals.get("__name__", ""))
    if name == "selectors" and frame.f_back is not None:
        name = str(frame.f_back.f_globals.get("__name__", ""))
    # of loops that are not written in Python the innermost frame is the one that started them
    return name.partition(".")[0] in ("asyncio", "uvloop", "uvicorn")


# tasks


def _tasks(frames: dict[int, types.FrameType]) -> Iterator[tuple[Any, Any]]:
    asyncio: Any = sys.modules.get("asyncio")
    # while it is imported some of its names are not there yet, and no loop runs
    if not all(hasattr(asyncio, name) for name in ("AbstractEventLoop", "all_tasks", "current_task")):
        return
    for loop in _loops(frames, asyncio.AbstractEventLoop):
        try:
            # another thread may begin and end tasks meanwhile; asyncio tries again, and at last gives up
            # by name, so that Task-10 comes after Task-9
            found = sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))
        except RuntimeError:
            continue
        for task in found:
            yield task, loop


def _loops(frames: dict[int, types.FrameType], kind: type) -> list[Any]:
    """The loops that run: asyncio lists none, but whoever runs one has it in a name."""
    found: dict[int, Any] = {}
    for innermost in frames.values():
        frame: types.FrameType | None = innermost
        while frame is not None:
            for value in _values(frame):
                for each in (value, getattr(value, "_loop", None) if _is_runner(value) else None):
                    # by its type: an object may say anything of its class
                    if issubclass(type(each), kind):
                        found[id(each)] = each
            frame = frame.f_back
    return [loop for loop in found.values() if loop.is_running()]


def _values(frame: types.FrameType) -> list[Any]:
    try:
        return list(frame.f_locals.values())
    except RuntimeError:  # the names of a module, which got another meanwhile
        return []


def _is_runner(value: object) -> bool:
    return type(value).__module__ == "asyncio.runners" and type(value).__name__ == "Runner"


def _of_task(task: Any, loop: Any, sources: Sources) -> dict[str, Any]:
    running = sys.modules["asyncio"].current_task(loop) is task
    waits_for: Any = getattr(task, "_fut_waiter", None)
    return {
        "name": str(task.get_name())[:_TEXT],
        "running": running,
        "waits_for": str(waits_for.get_name())[:_TEXT] if hasattr(waits_for, "get_name") else "",
        "frames": sources.shown(iter(reversed([*_awaited(task.get_coro())]))),
    }


def _awaited(waiting: Any) -> Iterator[types.FrameType]:
    """The frames of a coroutine and of what it awaits, the outermost first."""
    for _ in range(_DEEPEST * 10):
        for prefix, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(waiting, f"{prefix}_frame", None)
            if isinstance(frame, types.FrameType):
                yield frame
                waiting = getattr(waiting, inner, None)
                break
        else:
            return


# lines


class Sources:
    """The lines of files as they are now, each read once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lines: dict[str, list[bytes]] = {}

    def shown(self, frames: Iterator[types.FrameType]) -> list[dict[str, Any]]:
        return [self._shown(frame) for frame in itertools.islice(frames, _DEEPEST)]

    def _shown(self, frame: types.FrameType) -> dict[str, Any]:
        code, line = frame.f_code, frame.f_lineno or 0
        text = self._line(code.co_filename, line)
        return {
            "file": code.co_filename,
            "line": line,
            "function": code.co_qualname,
            "text": text.strip().decode("utf-8", "replace")[:_TEXT],
            "call": _call(frame, text)[:_TEXT],
            "own": code.co_filename.startswith(f"{self._folder}/"),
        }

    def _line(self, file: str, number: int) -> bytes:
        if file not in self._lines:
            self._lines[file] = _read(file)
        lines = self._lines[file]
        return lines[number - 1] if 0 < number <= len(lines) else b""


def _read(file: str) -> list[bytes]:
    try:
        with open(file, "rb") as source:  # noqa: PTH123 - what a frame names may be no path at all
            return source.read(_LARGEST).split(b"\n")
    except (OSError, ValueError):
        return []


def _call(frame: types.FrameType, line: bytes) -> str:
    """What a frame calls or awaits just now, `requests.get`; empty where that is not on one line, or is no call."""
    position = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if position is None or None in position or position[0] != position[1]:
        return ""
    segment = line[position[2] : position[3]]
    try:
        tree: Any = compile(segment.strip(), "<call>", "eval", _ONLY_TREE)
    except (SyntaxError, ValueError):
        return ""
    node = tree.body
    if type(node).__name__ == "Await":
        node = node.value
    if type(node).__name__ != "Call":
        return ""
    return segment.strip()[node.func.col_offset : node.func.end_col_offset].decode("utf-8", "replace")
