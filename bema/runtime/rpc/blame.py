"""Blame: whose fault an error is that came out of a handler.

Law: what a handler raises itself tells its caller what it says. What bema raised into a handler that did something wrong, as
when it calls another service with arguments that do not fit, is the service's fault: its caller, whose call was right, is
not told to mend it.
"""

from __future__ import annotations

import sys
import traceback

from bema.core.errors import Denied, Invalid, RemoteError, TooLarge

_OURS = "bema."
_OF_THE_CALLER = {"bema.runtime.rpc.flow_control", "bema.runtime.rpc.server_call"}  # read what the caller sent


def as_told(error: BaseException) -> BaseException:
    """The error as the caller of the handler is told of it."""
    if not isinstance(error, Invalid | Denied | TooLarge) or not _is_met(error):
        return error
    name = type(error).__qualname__
    return RemoteError(f"the service itself met this: {error.message}", type=name, traceback=_text_of(error))


def _is_met(error: BaseException) -> bool:
    """Whether ours raised it below code of the user's: the innermost frames tell."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    # a thread or a task between ours and ours is nobody's code
    theirs = [at for at, name in enumerate(modules) if not name.startswith(_OURS) and not _is_pythons(name)]
    # without any frame of the user's it is a service of ours, which raises what it means
    below = modules[theirs[-1] + 1 :] if theirs else []
    return bool(below) and _OF_THE_CALLER.isdisjoint(below)


def _is_pythons(module: str) -> bool:
    root = module.partition(".")[0]
    return root in sys.stdlib_module_names and root != "__main__"


def _text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
