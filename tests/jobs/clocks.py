"""A clock that moves when told, with alarms that ring as it moves."""

from collections.abc import Callable

from bema.core.clock import ManualClock


class ManualAlarmClock(ManualClock):
    """`advance` calls what is due by then, in the order of its instants."""

    def __init__(self, start: int = 1_700_000_000_000_000) -> None:
        super().__init__(start)
        self._alarms: list[tuple[int, Callable[[], None]]] = []

    def at(self, instant: int, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` when it is that instant; gives what takes this back."""
        alarm = (instant, told)
        self._alarms.append(alarm)
        return lambda: self._alarms.remove(alarm) if alarm in self._alarms else None

    def after(self, seconds: float, told: Callable[[], None]) -> Callable[[], None]:
        return self.at(self.now() + round(seconds * 1_000_000), told)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        for alarm in sorted(self._alarms, key=lambda alarm: alarm[0]):
            if alarm[0] <= self.now() and alarm in self._alarms:
                self._alarms.remove(alarm)
                alarm[1]()
