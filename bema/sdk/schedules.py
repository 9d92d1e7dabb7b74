"""`@schedule`: an endpoint that is called by the clock.

Laws: it leaves its declaration on the function and returns it, above or below `@endpoint` alike, several times if need be. What
can never come, or names what the endpoint does not take, is refused where it is declared.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from bema.core.errors import BadDeclaration
from bema.core.naming import check_name, shown
from bema.core.timetable import DeclaredSchedule, Missed, timetable
from bema.sdk import options, spec

F = TypeVar("F", bound=Callable[..., Any])


@options.closed
def schedule(
    cron: str | None = None,
    /,
    *,
    every: float | None = None,
    at: dt.datetime | None = None,
    tz: str = "UTC",
    name: str = "",
    missed: Missed = "once",
    arguments: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Call an endpoint by the clock: `@schedule("0 3 * * *", tz="Europe/Berlin")`. It is durable, or declared idempotent.

    - `cron`: minute, hour, day, month and day of the week, as Debian's cron reads them. It needs the extra `schedules`.
    - `every`: an interval in seconds, at least 1, counted from when the schedule was first declared.
    - `at`: one instant; without a zone of its own, it is read in `tz`.
    - `tz`: the time zone of a cron line, with its changes of clocks. UTC.
    - `name`: for `bema schedules`, one for each schedule of a service; without one, the endpoint's.
    - `missed`: whether what came while no process was there is made up for: `once`, however much it was, or `skip`, not at all.
    - `arguments`: of the call, by name. Parameters that have no default must be among them.

    Raises:
        BadDeclaration: it can never come, an option is unknown or impossible, or what is decorated is no function.
        Refused: a cron line needs cronsim, which is not installed (code `missing_extra`).
    """
    if callable(cron):
        raise BadDeclaration("@schedule says when: @schedule(every=60)")
    when = timetable(cron, every=every, at=at, tz=tz)
    if missed not in get_args(Missed):
        raise BadDeclaration(f"@schedule: missed is 'once' or 'skip', not {shown(missed)}")
    given = {} if arguments is None else arguments
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise BadDeclaration(f"@schedule: arguments is a mapping by the names of parameters, not {shown(arguments)}")
    if name != "":
        check_name(name, "schedule name")
    said = DeclaredSchedule(timetable=when, name=name, missed=missed, arguments=dict(given))

    def decorate(function: F) -> F:
        if not inspect.isfunction(function):
            raise BadDeclaration(f"@schedule decorates methods, not {function!r}")
        spec.schedule(function, said)
        return function

    return decorate
