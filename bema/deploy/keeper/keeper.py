"""The keeper put together: start, signals, the drain, the end."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable

from .child import Child
from .config import Config
from .instances import Instances
from .link import Link
from .loop import Loop
from .processes import become_subreaper, children, end_now, look, raise_descriptor_limit, reap
from .roster import Roster, clear, write_atomically
from .supervisor import Supervisor

_EARLY = 100  # lines of children that are kept until the banner was shown
_FAILED = 2
_LAST_WORDS = 0.3  # seconds
_LOOKS = (0.01, 0.05, 0.25, 1.0)  # seconds between looks for strays


class Keeper:
    def __init__(self, config: Config, loop: Loop) -> None:
        # before anything is started: what a killed warden leaves must come to us, not to init
        become_subreaper()
        descriptors = raise_descriptor_limit()
        self._config = config
        self._loop = loop
        self._roster_file = config.state / "keeper.json"
        self._up_file = config.state / "up.json"
        self._roster = Roster(self._roster_file)
        self._link = Link(loop, config.line, self._link_broken)
        self.instances = Instances(loop, config, self._roster, descriptors, self._link.tell)
        self._link.serve(self.instances)
        self._supervisors = [
            Supervisor(
                plan,
                config,
                loop,
                self._roster,
                self._link,
                descriptors,
                ready=self._ready,
                died=lambda why: _say(f"bema: {why}; it is started again", error=True),
                hopeless=self._hopeless,
                said=self._told,
            )
            for plan in config.children
        ]
        # a shell that became us may have left us children
        self._before = frozenset(children())
        self._code = 0
        self._draining = False
        self._is_up = False
        self._early: deque[str] = deque(maxlen=_EARLY)

    def start(self) -> None:
        # before the first child, or its early end would go unheard
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._loop.on_signal(number, lambda number=number: self._asked_to_stop(number))  # type: ignore[misc]
        for supervisor in self._supervisors:
            supervisor.begin()

    def _children(self) -> list[Child]:
        return [*self.instances, *(s.child for s in self._supervisors if s.child is not None)]

    def _reap(self) -> None:
        reaped = list(reap())
        # what has ended has reported before: nothing that a zygote has forked is unknown from here on
        self.instances.zygotes.look()
        reaped = [(pid, status) for pid, status in reaped if not self.instances.zygotes.ended(pid, status)]
        by_warden = {child.warden.pid: child for child in self._children()}
        ended = [(by_warden[pid], status) for pid, status in reaped if pid in by_warden]
        for child, _ in ended:
            child.reaped()
        if any(status != 0 for _, status in ended):
            self._end_strays(_LOOKS)
        elif len(ended) < len(reaped):
            # one that is always another process is missed by whoever looks now and then; each that it was ends here
            self._end_strays(())

    def _end_strays(self, looks: tuple[float, ...]) -> None:
        """What a warden that was killed left to us: all our children are wardens or zygotes, so whoever is neither ends.

        We look again after each of these waits, since who is killed leaves us his own children.
        """
        found = children()
        # after that: what a zygote has forked is reported before it is a child of ours
        forked = self.instances.zygotes.look()
        spared = self._before | forked | {child.warden.pid for child in self._children()}
        strays = [pid for pid in found if pid not in spared and look(pid) is not None]
        for pid in strays:
            end_now(pid)
        if looks:
            following = looks[1:] or (looks if strays else ())
            self._loop.after(looks[0], lambda: self._end_strays(following))

    def _ready(self) -> None:
        if not all(supervisor.was_ready or supervisor.plan.on_demand for supervisor in self._supervisors):
            return
        if self._is_up:  # one that was started on demand
            return
        up = {**self._config.up, "pid": os.getpid(), "started": time.time_ns() // 1000}
        try:
            # only now: whoever finds it may call, and both listeners answer
            write_atomically(self._up_file, json.dumps(up))
        except OSError as error:
            _say(f"bema: {self._up_file} cannot be written: {error.strerror}", error=True)
        self._is_up = True
        for text in (self._config.banner, *self._early):
            _say(text)
        self._early.clear()

    def _told(self, line: str) -> None:
        """What a child writes: shown after the banner, however early it came."""
        if self._is_up:
            _say(line)
        else:
            self._early.append(line)

    def _hopeless(self, why: str) -> None:
        if not self._draining:
            _say(f"bema: {why}\n  its log: {self._config.state / 'logs' / 'bema'}", error=True)
            self._code = _FAILED
            self._drain()

    def _link_broken(self, why: str) -> None:
        """An orchestrator that cannot be talked to is as good as dead; the next one asks what runs."""
        for supervisor in self._supervisors:
            if supervisor.plan.link and (child := supervisor.child) is not None:
                # one that is ending closes its link first, and its own end says more than ours would
                self._loop.after(_LAST_WORDS, functools.partial(self._kill_deaf, supervisor, child, why))

    def _kill_deaf(self, supervisor: Supervisor, child: Child, why: str) -> None:
        # the one whose link it was may be gone, and another may stand there
        if supervisor.child is child and not self._draining:
            child.log.note(f"killed: its link is broken: {why}", "error")
            child.kill()

    # the end

    def _asked_to_stop(self, number: int) -> None:
        if self._draining:
            self._kill_all()
            self._finish(128 + number)
        else:
            _say("bema: draining; once more to stop at once", error=True)
            self._drain()

    def _drain(self) -> None:
        """Outside in: who takes requests finishes first, who starts processes goes last."""
        self._draining = True
        last = [each for each in self._supervisors if each.plan.link or each.plan.outlives]
        first = [each for each in self._supervisors if each not in last]
        # the orchestrator still runs and may ask for starts; it is refused from here on
        self.instances.draining = True
        self.instances.on_empty = lambda: self._stop(last, self._config.stop, lambda: self._finish(self._code))
        # the gateway gets the drain: it has the requests; an instance behind it has none left then
        self._stop(first, self._config.drain, lambda: self.instances.drain(self._config.stop))

    def _stop(self, supervisors: list[Supervisor], grace: float, then: Callable[[], None]) -> None:
        waiting = set(map(id, supervisors))

        def gone(supervisor: Supervisor) -> None:
            waiting.discard(id(supervisor))
            if not waiting:
                then()

        if not supervisors:
            then()
        for supervisor in supervisors:
            supervisor.drain(grace, lambda supervisor=supervisor: gone(supervisor))  # type: ignore[misc]

    def _kill_all(self) -> None:
        """Our children, then whatever else stands on the roster: what they started."""
        # to each warden; those that are not done when we exit hear of our death from the kernel
        for child in self._children():
            child.kill()
        clear(self._roster_file, keeper=os.getpid(), patience=0.0)

    def _finish(self, code: int) -> None:
        self.instances.close()
        for supervisor in self._supervisors:
            supervisor.close()
        with contextlib.suppress(OSError):
            self._up_file.unlink()
        # last of the files: had we died before this, the next `bema up` would look for what is left
        self._roster.close()
        self._loop.stop(code)


def _say(text: str, *, error: bool = False) -> None:
    """To the terminal, or whatever stands for it.

    Not by print: what it could not write, Python would try once more at exit, and exit with 120.
    """
    left = f"{text}\n".encode(errors="replace")
    with contextlib.suppress(OSError):
        while left:
            left = left[os.write(2 if error else 1, left) :]


def main(descriptor: int) -> int:
    config = Config.read(descriptor)
    loop = Loop()
    Keeper(config, loop).start()
    code = loop.run()
    loop.close()
    return code
