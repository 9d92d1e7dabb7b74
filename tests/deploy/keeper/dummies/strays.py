"""Offspring that does all it can to stay: `strays.py TAG`. Whoever descends from this has TAG on its command line."""

import os
import signal
import time


def sleep() -> None:
    while True:
        time.sleep(600)


def in_a_session_of_its_own() -> None:
    os.setsid()
    sleep()


def as_a_daemon() -> None:
    os.setsid()
    if os.fork() == 0:
        sleep()


def deaf() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sleep()


def stopped() -> None:
    os.setsid()
    while True:
        os.kill(os.getpid(), signal.SIGSTOP)


def that_is_always_another() -> None:
    """A new process, session and parent each time: whoever looks finds one that is gone."""
    while os.fork() == 0:
        os.setsid()


def that_starts_its_child_again() -> None:
    os.setsid()
    while True:
        if (child := os.fork()) == 0:
            sleep()
        os.waitpid(child, 0)


KINDS = (in_a_session_of_its_own, as_a_daemon, deaf, stopped, that_is_always_another, that_starts_its_child_again)


def main() -> None:
    for kind in KINDS:
        if os.fork() == 0:
            kind()
            os._exit(0)
    sleep()


main()
