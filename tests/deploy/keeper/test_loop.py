import os
import signal
import socket

import pytest

from bema.deploy.keeper.loop import READ, Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_timers_fire_in_order_and_cancelled_ones_never(loop):
    fired = []
    loop.after(0.002, lambda: fired.append("second"))
    loop.after(0.0, lambda: fired.append("first"))
    loop.after(0.0, lambda: fired.append("never")).cancel()
    while len(fired) < 2:
        loop.turn()
    assert fired == ["first", "second"]


def test_a_signal_calls_back_between_turns(loop):
    seen = []
    before = signal.getsignal(signal.SIGUSR1)
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        while not seen:
            loop.turn(1.0)
        assert seen == ["usr1"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_was_forgotten_is_not_called_in_the_same_turn(loop):
    pairs = [socket.socketpair() for _ in range(2)]
    called = []

    def forget_all():
        called.append(1)
        for ours, _ in pairs:
            loop.forget(ours)

    for ours, theirs in pairs:
        loop.watch(ours, READ, forget_all)
        theirs.send(b"x")
    loop.turn(1.0)
    assert called == [1]
    for end in (end for pair in pairs for end in pair):
        end.close()


def test_a_defect_in_a_callback_is_said_and_ends_nothing(loop, capsys):
    ours, theirs = socket.socketpair()
    loop.watch(ours, READ, lambda: 1 // 0)
    loop.after(0.0, lambda: loop.stop(3))
    theirs.send(b"x")
    assert loop.run() == 3
    assert "ZeroDivisionError" in capsys.readouterr().err
    ours.close()
    theirs.close()
