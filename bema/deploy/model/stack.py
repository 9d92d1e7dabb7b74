"""Where the threads and tasks of an instance stand, and where its time goes: as it says, and as one sentence.

Law: an instance tells of itself, so what is read here is bounded and believed for what it is, a script's word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

import msgspec

_SHOWN = 3  # tasks that a sentence names
_LONGEST = 80  # characters of what a sentence says of one place
_THREAD = re.compile(r"(?:Current thread|Thread) (?:0x[0-9a-f]+)")
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d{1,9}) in (?P<function>.*)\Z')
_RUNNER = "bema/runner/"
_OURS = (f"{_RUNNER}inspection.py", f"{_RUNNER}companion.py")  # what threads of the runner run


class StackFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`text` is the line, `call` what is called or awaited in it; `own` says that it is of the script's own files."""

    file: str
    line: int
    function: str
    text: str = ""
    call: str = ""
    own: bool = False

    def place(self) -> str:
        """`main.py:42 requests.get`."""
        return f"{PurePath(self.file).name}:{self.line} {self.call or self.text or self.function}"[:_LONGEST].rstrip(
            ": "
        )


class ThreadStack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`frames` from the innermost; `idle` says that its event loop waits for something to happen."""

    name: str
    main: bool = False
    idle: bool = False
    frames: tuple[StackFrame, ...] = ()


class TaskStack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`running` is the one that its loop is in; `waits_for` names the task that it waits for, where it is one."""

    name: str
    running: bool = False
    waits_for: str = ""
    frames: tuple[StackFrame, ...] = ()


class Stack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of an instance at one moment. `held` says that C code held the interpreter: then there are no tasks."""

    instance: str = ""
    version: str = ""
    held: bool = False
    threads: tuple[ThreadStack, ...] = ()
    tasks: tuple[TaskStack, ...] = ()

    def where(self) -> str:
        """Where it stands, in the script's own lines where it has any: the main thread, or the tasks that its loop waits
        for."""
        main = next((thread for thread in self.threads if thread.main), None) or next(iter(self.threads), None)
        if main is None:
            return ""
        waiting = [f"{f.place()} ({task.name})" for task in self.tasks if (f := _own(task.frames)) is not None]
        if main.idle and waiting:
            more = len(waiting) - _SHOWN
            return ", ".join(waiting[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        found = _own(main.frames) or next(iter(main.frames), None)
        return "" if found is None else found.place()


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """`frames` are (file, function, its first line); a stack is (microseconds, frames by number, the outermost first)."""

    instance: str = ""
    version: str = ""
    looks: int = 0
    frames: tuple[tuple[str, str, int], ...] = ()
    stacks: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        if any(not 0 <= number < len(self.frames) for _, stack in self.stacks for number in stack):
            raise ValueError("a stack names a frame that is not there")


def _own(frames: Iterable[StackFrame]) -> StackFrame | None:
    return next((frame for frame in frames if frame.own), None)


def read_traceback(text: str, script: str) -> Stack:
    """The stack that Python's fault handler writes: threads without names, the main one last, and no task."""
    threads = [tuple(each) for each in _threads(text, str(PurePath(script).parent))]
    # our own are there as well
    shown = [frames for frames in threads if frames and not any(frame.file.endswith(_OURS) for frame in frames)]
    named = [
        ThreadStack(
            name="main" if last else "thread", main=last, frames=tuple(f for f in frames if _RUNNER not in f.file)
        )
        for number, frames in enumerate(reversed(shown))
        for last in (number == 0,)
    ]
    return Stack(held=True, threads=tuple(named))


def _threads(text: str, folder: str) -> Iterator[list[StackFrame]]:
    frames: list[StackFrame] | None = None
    for line in text.splitlines():
        if _THREAD.match(line):
            if frames is not None:
                yield frames
            frames = []
        elif frames is not None and (found := _FRAME.match(line)) is not None:
            file = found["file"]
            own = file.startswith(f"{folder}/")
            frames.append(StackFrame(file=file, line=int(found["line"]), function=found["function"], own=own))
    if frames is not None:
        yield frames
