"""What the code of a user may do to its process, its threads, its loop and its interpreter: `python hazards.py NAME`.

The endpoints of the instance do what is named; without a name they do nothing, and idempotent calls find an answer there.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import faulthandler
import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from bema import async_init, endpoint, service

NAME = sys.argv[1] if len(sys.argv) > 1 else ""
DO: dict[str, Callable[[], Any]] = {}


def hazard(function: Callable[[], Any]) -> Callable[[], Any]:
    DO[function.__name__] = function
    return function


# the process


@hazard
def exits() -> None:
    os._exit(3)


@hazard
def aborts() -> None:
    os.abort()


@hazard
def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@hazard
def terminates_itself() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@hazard
def interrupts_itself() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@hazard
def hangs_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


@hazard
def becomes_another_program() -> None:
    os.execv("/bin/sleep", ["sleep", "30"])


@hazard
def faults() -> None:
    faulthandler.enable()
    ctypes.string_at(0)


@hazard
def runs_out_of_processor_time() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (0, 1))
    while True:
        pass


@hazard
def asks_to_exit() -> None:
    sys.exit(4)


@hazard
def quits() -> None:
    quit()


@hazard
def raises_an_interrupt() -> None:
    raise KeyboardInterrupt


@hazard
def interrupts_main() -> None:
    import _thread

    _thread.interrupt_main()


@hazard
def closes_the_standard_files() -> None:
    os.closerange(0, 3)


@hazard
def closes_every_file() -> None:
    os.closerange(0, 65536)


@hazard
def closes_every_file_but_the_standard_ones() -> None:
    os.closerange(3, 65536)


@hazard
def changes_its_folder() -> None:
    os.chdir("/")


@hazard
def masks_everything() -> None:
    os.umask(0o777)


@hazard
def ignores_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


@hazard
def loses_its_environment() -> None:
    os.environ.clear()


@hazard
def daemonizes() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()


# children


@hazard
def forks_and_both_answer() -> str:
    os.fork()
    return "answered"


@hazard
def forks_and_the_child_raises() -> None:
    if os.fork() == 0:
        raise ValueError("in the child")


@hazard
def forks_and_the_child_exits() -> str:
    child = os.fork()
    if child == 0:
        sys.exit(0)
    return "answered"


@hazard
def forks_by_multiprocessing() -> int:
    queue = multiprocessing.get_context("fork").Queue()
    child = multiprocessing.get_context("fork").Process(target=queue.put, args=(1,))
    child.start()
    answer = queue.get(timeout=5)
    child.join()
    return int(answer)


# threads


def _thread(work: Callable[[], Any], *, daemon: bool = False) -> None:
    thread = threading.Thread(target=work, daemon=daemon)
    thread.start()
    thread.join(0.2)


@hazard
def exits_in_a_thread() -> None:
    _thread(lambda: sys.exit(5))


@hazard
def raises_in_a_thread() -> None:
    _thread(lambda: 1 // 0)


@hazard
def leaves_a_thread_that_never_ends() -> None:
    _thread(threading.Event().wait)


@hazard
def ends_with_a_thread_that_never_ends() -> None:
    _thread(threading.Event().wait)
    os.kill(os.getpid(), signal.SIGTERM)


@hazard
def ends_with_an_atexit_that_hangs() -> None:
    atexit.register(time.sleep, 60)
    os.kill(os.getpid(), signal.SIGTERM)


@hazard
def raises_in_the_main_thread() -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(threading.main_thread().ident or 0), ctypes.py_object(SystemExit)
    )
    time.sleep(0.05)


@hazard
def injects_an_error_into_the_main_thread() -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(threading.main_thread().ident or 0), ctypes.py_object(ValueError)
    )
    time.sleep(0.05)


# the loop; done in the loop also where the handler is in a thread


def _loop() -> asyncio.AbstractEventLoop:
    return Hazards.loop


@hazard
def stops_the_loop() -> None:
    _loop().stop()


@hazard
def stops_the_loop_later() -> None:
    _loop().call_soon_threadsafe(_loop().stop)


@hazard
def closes_the_loop() -> None:
    _loop().close()


@hazard
def runs_the_loop_in_itself() -> None:
    _loop().run_forever()


@hazard
def runs_another_in_it() -> None:
    asyncio.run(asyncio.sleep(0))


@hazard
def cancels_every_task() -> None:
    for task in asyncio.all_tasks(_loop()):
        _loop().call_soon_threadsafe(task.cancel)


@hazard
def cancels_every_other_task() -> None:
    try:
        own = asyncio.current_task()
    except RuntimeError:
        own = None
    for task in asyncio.all_tasks(_loop()) - {own}:
        _loop().call_soon_threadsafe(task.cancel)


@hazard
def exits_in_a_callback() -> None:
    _loop().call_soon_threadsafe(sys.exit, 6)


@hazard
def interrupts_in_a_callback() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    _loop().call_soon_threadsafe(interrupt)


@hazard
def fails_in_a_callback() -> None:
    _loop().call_soon_threadsafe(lambda: 1 // 0)


@hazard
def exits_in_a_task() -> None:
    async def leave() -> None:
        sys.exit(7)

    asyncio.run_coroutine_threadsafe(leave(), _loop())


@hazard
def forgets_the_policy() -> None:
    asyncio.set_event_loop(None)


@hazard
def replaces_the_default_executor() -> None:
    pool = __import__("concurrent.futures").futures.ThreadPoolExecutor(1)
    pool.shutdown()
    _loop().set_default_executor(pool)


@hazard
def shuts_the_default_executor() -> None:
    asyncio.run_coroutine_threadsafe(_loop().shutdown_default_executor(), _loop())


@hazard
def shuts_asyncgens() -> None:
    asyncio.run_coroutine_threadsafe(_loop().shutdown_asyncgens(), _loop())


@hazard
def replaces_the_exception_handler() -> None:
    def handle(loop: Any, context: Any) -> None:
        raise RuntimeError("no")

    _loop().set_exception_handler(handle)
    _loop().call_soon_threadsafe(lambda: 1 // 0)


# the interpreter


@hazard
def recurses() -> None:
    recurses()


@hazard
def recurses_within_little() -> None:
    sys.setrecursionlimit(60)


@hazard
def takes_all_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    held = []
    while True:
        held.append(bytearray(2**20))


@hazard
def leaves_no_threads() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


@hazard
def leaves_no_file_space() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@hazard
def makes_warnings_errors() -> None:
    warnings.simplefilter("error")


@hazard
def collects_nothing() -> None:
    gc.disable()
    gc.freeze()


@hazard
def replaces_the_standard_streams() -> None:
    sys.stdout = sys.stderr = None


@hazard
def closes_the_standard_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


@hazard
def traces() -> None:
    def trace(*_: Any) -> Any:
        raise RuntimeError("traced")

    sys.settrace(trace)


@hazard
def traces_for_the_loop() -> None:
    def trace(*_: Any) -> Any:
        raise RuntimeError("traced")

    threading.settrace(trace)
    _loop().call_soon_threadsafe(sys.settrace, trace)


@hazard
def empties_the_modules() -> None:
    sys.modules.clear()


@hazard
def breaks_builtins() -> None:
    import builtins

    del builtins.len


@hazard
def breaks_monotonic() -> None:
    time.monotonic = None  # type: ignore[assignment]


@hazard
def breaks_logging() -> None:
    import logging

    class Bad(logging.Handler):
        def emit(self, record: Any) -> None:
            raise RuntimeError("cannot log")

    logging.getLogger().handlers = [Bad()]
    raise ValueError("to be logged")


@hazard
def raises_in_a_filter_of_the_log() -> None:
    import logging

    def refuse(record: Any) -> bool:
        raise RuntimeError("cannot filter")

    logging.getLogger("bema.service").addFilter(refuse)
    raise ValueError("to be logged")


@hazard
def blocks() -> None:
    time.sleep(0.5)


# what is raised


class Own(BaseException):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Leaves(Exception):
    def __str__(self) -> str:
        sys.exit(9)

    __repr__ = __str__


def _raises(name: str, make: Callable[[], BaseException]) -> None:
    def function() -> None:
        raise make()

    DO[f"raises_{name}"] = function


_raises("its_own", Own)
_raises("mute", Mute)
_raises("one_whose_text_leaves", Leaves)
_raises("generator_exit", GeneratorExit)
_raises("cancelled", asyncio.CancelledError)
_raises("stop_iteration", lambda: StopIteration(1))
_raises("stop_async_iteration", StopAsyncIteration)
_raises("timeout", TimeoutError)
_raises("memory", MemoryError)
_raises("recursion", RecursionError)
_raises("group", lambda: ExceptionGroup("several", [ValueError(1), OSError(2)]))
_raises("group_with_exit", lambda: BaseExceptionGroup("several", [SystemExit(1), KeyboardInterrupt()]))
_raises("group_with_cancelled", lambda: BaseExceptionGroup("several", [asyncio.CancelledError()]))
_raises("warning", lambda: UserWarning("watch"))
_raises("broken_pipe", BrokenPipeError)
_raises("invalid_state", asyncio.InvalidStateError)


def _one_whose_traceback_is_long() -> BaseException:
    first = error = ValueError("first")
    for _ in range(300):
        error.__cause__ = following = ValueError("next")
        error = following
    return first


_raises("long_chain", _one_whose_traceback_is_long)


def _circular() -> BaseException:
    one, two = ValueError(1), ValueError(2)
    one.__cause__, two.__cause__ = two, one
    return one


_raises("circle", _circular)


@service(name="hazards", namespace="story")
class Hazards:
    loop: asyncio.AbstractEventLoop

    @async_init
    async def begin(self) -> None:
        Hazards.loop = asyncio.get_running_loop()

    @endpoint()
    async def in_the_loop(self) -> Any:
        return DO[NAME]()

    @endpoint()
    def in_a_thread(self) -> Any:
        return DO[NAME]()

    @endpoint()
    async def in_a_stream(self) -> AsyncIterator[int]:
        yield 1
        DO[NAME]()

    @endpoint()
    def in_a_stream_in_a_thread(self) -> Iterator[int]:
        yield 1
        DO[NAME]()

    @endpoint()
    async def when_closed(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            DO[NAME]()

    @endpoint(idempotent=True)
    async def waits(self) -> str:
        if not NAME:
            return "elsewhere"
        await asyncio.sleep(1.0)
        return "here"

    @endpoint()
    async def waits_once(self) -> str:
        await asyncio.sleep(1.0)
        return "here"

    @endpoint()
    def waits_in_a_thread(self) -> str:
        time.sleep(1.0)
        return "here"

    @endpoint()
    async def counts(self) -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await asyncio.sleep(0.1)

    @endpoint()
    async def pid(self) -> int:
        return os.getpid()


if __name__ == "__main__":
    asyncio.run(Hazards.start())  # type: ignore[attr-defined]
