"""The keeper with real processes: what it holds, what it survives, how it ends."""

import contextlib
import functools
import json
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from bema.deploy.keeper.processes import look, processes

from .conftest import Platform, alive, ask, until


def test_an_instance_is_started_announced_answers_and_stops(platform):
    platform.ready()
    pid = platform.serving()
    assert ask(str(platform.folder / "d1.sock")) == str(pid)
    [listed] = platform.request("list")["ok"]["instances"]
    assert (listed["pid"], listed["announce"]["listen"]) == (pid, str(platform.folder / "d1.sock"))

    platform.request("stop", instance=platform.last, grace_ms=5000, reason="test")
    end = platform.event("exited")
    assert (end["code"], end["signal"], end["stopped"]) == (0, None, True)
    assert platform.request("list")["ok"]["instances"] == []


def test_a_child_inherits_what_it_was_given_and_nothing_else(platform):
    platform.ready()
    platform.spawn()
    held = platform.event("announced")["announce"]["held"]
    assert held["environment"] == ["BEMA_CHANNEL", "BEMA_INSTANCE", "LC_CTYPE", "MODE"]
    # stdin, stdout, stderr, channel, listener, lease, and the folder it was listing
    assert len(held["descriptors"]) == 7


def test_the_lease_is_held_by_the_instance_alone(platform):
    platform.ready()
    pid = platform.serving()
    [lease] = (platform.folder / "d").iterdir()
    assert subprocess.run(["flock", "-n", lease, "true"]).returncode == 1
    os.kill(pid, signal.SIGKILL)
    platform.event("exited")
    assert subprocess.run(["flock", "-n", lease, "true"]).returncode == 0


def test_a_crash_is_reported_with_its_last_log_lines(platform):
    platform.ready()
    platform.spawn("crash")
    end = platform.event("exited")
    assert (end["code"], end["stopped"]) == (1, False)
    assert {"about to fail", "no such table: users", "ended with code 1"} <= {line["event"] for line in end["tail"]}
    assert [(line["stream"], line["event"]) for line in platform.log() if line["stream"] == "stderr"] == [
        ("stderr", "no such table: users")
    ]


def test_a_request_between_two_instances_waits_in_the_listener(platform):
    platform.ready()
    first = platform.serving()
    os.kill(first, signal.SIGKILL)
    platform.event("exited")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(platform.folder / "d1.sock"))
        second = platform.serving()
        client.settimeout(5)
        assert client.makefile().read() == str(second)
    platform.request("forget", deployment="d1")
    assert not (platform.folder / "d1.sock").exists()


def test_a_stubborn_instance_is_killed_after_its_grace(platform):
    platform.ready()
    platform.serving("stubborn")
    platform.request("stop", instance=platform.last, grace_ms=100, reason="test")
    end = platform.event("exited")
    assert (end["signal"], end["stopped"]) == (signal.SIGKILL, True)


def test_what_an_instance_started_ends_with_it(platform):
    platform.ready()
    pid = platform.serving("parent")
    grandchildren = until(lambda: len(found := platform.printed()) == 2 and found)
    assert all(map(alive, grandchildren))
    os.kill(pid, signal.SIGKILL)
    platform.event("exited")
    until(lambda: not any(map(alive, grandchildren)))


def test_a_flood_is_cut_marked_rotated_and_delays_nobody(platform):
    platform.ready()
    platform.serving(deployment="d2")
    platform.spawn("flood")
    asked = time.monotonic()
    assert ask(str(platform.folder / "d2.sock"))
    platform.request("list")
    assert time.monotonic() - asked < 2
    platform.event("announced")
    until(lambda: any(line["event"] == "after the flood" for line in platform.log()))
    [flood] = [line for line in platform.log() if "cut" in line]
    assert flood["event"] == "x" * 1024
    assert flood["cut"] == (64 << 20) - 1024


def test_nonsense_on_a_channel_is_noted_and_does_no_harm(platform):
    platform.ready()
    platform.serving("nonsense")
    notes = [line["event"] for line in platform.log() if line["level"] == "warning"]
    assert notes[0].startswith("ignored on the channel: not a JSON object")
    assert notes[1] == "ignored on the channel: a line of more than 1048576 bytes"


def test_refused_requests_say_why(platform):
    platform.ready()
    assert platform.request("dance")["error"]["code"] == "protocol"
    assert platform.request("stop")["error"]["code"] == "protocol"
    assert platform.spawn(argv=["/no/such/program"])["error"] == {
        "code": "start_failed",
        "message": "No such file or directory: /no/such/program",
    }
    assert platform.spawn(deployment="../../etc")["error"]["code"] == "bad_name"
    assert platform.spawn(deployment="d2", listen="udp:1")["error"]["code"] == "protocol"
    assert platform.request("list")["ok"]["instances"] == []
    assert ask(platform.address) == str(platform.pid_of("gateway"))


@pytest.mark.alone
def test_kill_9_of_the_orchestrator_leaves_instances_alone_and_a_new_one_asks(platform):
    platform.ready()
    pid = platform.serving()
    old = platform.pid_of("orchestrator")
    os.kill(old, signal.SIGKILL)
    since = time.monotonic()
    until(lambda: platform.pid_of("orchestrator") not in (None, old))
    platform.connect()
    [listed] = platform.request("list")["ok"]["instances"]
    assert time.monotonic() - since < 1
    assert (listed["pid"], listed["announce"] is not None) == (pid, True)
    assert ask(str(platform.folder / "d1.sock")) == str(pid)


def test_the_end_of_an_instance_is_told_until_it_was_seen(platform):
    platform.ready()
    old = platform.pid_of("orchestrator")
    pid, instance = platform.serving(), platform.last
    os.kill(old, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    os.kill(old, signal.SIGKILL)
    until(lambda: platform.pid_of("orchestrator") not in (None, old))
    platform.connect()
    assert platform.request("list")["ok"]["instances"] == []
    assert platform.event("exited")["instance"] == instance

    platform.request("seen", instance=instance)
    os.kill(old := platform.pid_of("orchestrator"), signal.SIGKILL)
    until(lambda: platform.pid_of("orchestrator") not in (None, old))
    platform.connect()
    platform.request("list")
    platform.spawn("crash")
    assert platform.event("exited")["instance"] == platform.last


@pytest.mark.alone
def test_kill_9_of_the_gateway_lets_connections_wait_for_the_next(platform):
    platform.ready()
    old = platform.pid_of("gateway")
    assert ask(platform.address) == str(old)
    os.kill(old, signal.SIGKILL)
    since = time.monotonic()
    assert ask(platform.address) not in ("", str(old))
    assert time.monotonic() - since < 1


def test_an_orchestrator_that_speaks_nonsense_is_replaced(platform):
    platform.ready()
    old = platform.pid_of("orchestrator")
    platform._link.sendall(b"this is not JSON\n")
    until(lambda: platform.pid_of("orchestrator") not in (None, old))
    platform.connect()
    assert platform.request("list")["ok"]["instances"] == []


def test_out_of_descriptors_it_refuses_and_goes_on(tmp_path):
    platform = Platform(tmp_path, limited=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))).ready()
    try:
        answers = [platform.spawn(deployment=f"d{number}") for number in range(12)]
        refused = [answer["error"] for answer in answers if "error" in answer]
        assert {error["code"] for error in refused} == {"start_failed"}
        assert "Too many open files" in refused[0]["message"]
        platform.request("stop", instance=platform.request("list")["ok"]["instances"][0]["instance"], grace_ms=0)
        assert platform.event("exited")["stopped"]
        assert ask(platform.address) == str(platform.pid_of("gateway"))
        platform.signal()
        assert platform.ended()[0] == 0
    finally:
        platform.close()


def test_with_a_full_disk_it_goes_on(tmp_path):
    platform = Platform(tmp_path, limited=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))).ready()
    try:
        pid = platform.serving("flood")
        assert ask(str(platform.folder / "d1.sock")) == str(pid)
        assert all(line["stream"] for line in platform.log())
        platform.signal()
        assert platform.ended()[0] == 0
    finally:
        platform.close()


def test_who_ends_the_warden_gets_another(platform):
    """Its instance ends with it, and the next instance has one of its own."""
    platform.ready()
    for _ in range(2):
        pid = platform.serving("parent")
        offspring = [pid, *until(lambda: len(found := platform.printed()) >= 2 and found[-2:])]
        os.kill(warden_of(pid), signal.SIGKILL)
        end = platform.event("exited")
        assert (end["signal"], end["stopped"]) == (signal.SIGKILL, False)
        until(functools.partial(none_alive, offspring))


def test_who_ends_the_warden_of_one_of_us_ends_it_and_it_is_started_again(platform):
    platform.ready()
    instance = platform.serving()
    for name in ("gateway", "orchestrator"):
        end_warden_of(platform, name)
    platform.connect()
    [listed] = platform.request("list")["ok"]["instances"]
    assert listed["pid"] == instance
    assert ask(platform.address) == str(platform.pid_of("gateway"))


def end_warden_of(platform, name):
    old = platform.pid_of(name)
    os.kill(warden_of(old), signal.SIGKILL)
    until(lambda: platform.pid_of(name) not in (None, old))
    until(lambda: not alive(old))


def none_alive(pids):
    return not any(map(alive, pids))


def warden_of(pid):
    found = look(pid)
    assert found is not None
    return found.parent


def with_strays(platform):
    """An instance that has started one of each kind of stray; how many of them live."""
    tag = f"strays-of-{platform.folder}"

    def living():
        return sum(tag in words and alive(pid) for pid, words in command_lines())

    answer = platform.spawn(env={"MODE": "strays", "TAG": tag})
    assert "ok" in answer, answer
    platform.event("announced")
    # one of each, the child of the one that starts it again, and who started them
    until(lambda: living() >= 8, 20)
    return answer["ok"]["pid"], living


def seen_of_any(living):
    """Whether one lives: who is always another is seen by some looks, and by others not."""
    return any(living() for _ in range(20))


def command_lines():
    for process in processes():
        with contextlib.suppress(OSError):
            yield process.pid, Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace").split("\0")


@pytest.mark.parametrize("how", ["stop", "kill", "kill its warden", "second signal", "drain", "kill the keeper"])
def test_whatever_descends_from_an_instance_ends_with_it(platform, how):
    platform.ready()
    pid, living = with_strays(platform)
    match how:
        case "stop":
            platform.request("stop", instance=platform.last, grace_ms=5000, reason="test")
        case "kill":
            os.kill(pid, signal.SIGKILL)
        case "kill its warden":
            os.kill(warden_of(pid), signal.SIGKILL)
        case "kill the keeper":
            platform.signal(signal.SIGKILL)
        case _:
            platform.signal()
            if how == "second signal":
                assert platform.process.stderr.readline().startswith("bema: draining")
                platform.signal()
            platform.ended()
    if how in ("stop", "kill"):
        # who is told of the end can rely on it
        platform.event("exited")
        assert not seen_of_any(living)
    until(lambda: not seen_of_any(living), 5)


def test_a_warden_that_was_stopped_ends_its_instance_all_the_same(platform):
    platform.ready()
    pid = platform.serving("stubborn")
    os.kill(warden_of(pid), signal.SIGSTOP)
    platform.request("stop", instance=platform.last, grace_ms=0, reason="test")
    platform.event("exited")
    assert not alive(pid)


def test_a_platform_that_cannot_start_says_why_and_ends(tmp_path):
    platform = Platform(tmp_path, gateway={"refuse": "ImportError: no module named httptools"}).up()
    code, said = platform.ended()
    assert code == 2
    assert "gateway ended with code 1: ImportError: no module named httptools" in said
    assert not (platform.state / "up.json").exists()


def test_what_its_children_print_is_shown_once_however_often_they_start(tmp_path):
    platform = Platform(tmp_path, gateway={"say": "api: ready\n"}).ready()
    try:
        assert platform.process.stdout is not None
        assert platform.process.stdout.readline() == "api: ready\n"
        old = platform.pid_of("gateway")
        os.kill(old, signal.SIGKILL)
        until(lambda: platform.pid_of("gateway") not in (None, old))
        assert ask(platform.address) == str(platform.pid_of("gateway"))
        platform.signal()
        assert platform.process.communicate(timeout=15)[0] == ""
    finally:
        platform.close()


def test_up_json_is_there_while_it_is_up(platform):
    platform.ready()
    up = json.loads((platform.state / "up.json").read_text())
    assert (up["pid"], up["gateway"]) == (platform.process.pid, "http://127.0.0.1")
    platform.signal()
    assert platform.ended()[0] == 0
    assert not (platform.state / "up.json").exists()
    assert not (platform.state / "keeper.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_drains_and_exits_0(platform, number):
    platform.ready()
    pids = [platform.serving(), *platform.pids()]
    platform.signal(number)
    assert platform.ended()[0] == 0
    assert not any(map(alive, pids))
    assert platform.log()[-1]["event"] == "ended with code 0"


def test_a_terminal_that_is_gone_costs_it_nothing(platform):
    platform.ready()
    platform.process.stdout.close()
    platform.process.stderr.close()
    platform.signal()
    assert platform.process.wait(timeout=15) == 0


def test_a_full_disk_under_what_it_says_costs_it_nothing(tmp_path):
    with open("/dev/full", "w") as full:
        platform = Platform(tmp_path, output=full).up()
        try:
            until((platform.state / "up.json").exists)
            os.kill(old := platform.pid_of("gateway"), signal.SIGKILL)
            until(lambda: platform.pid_of("gateway") not in (None, old))
            platform.signal()
            assert platform.process.wait(timeout=15) == 0
        finally:
            platform.close()


def test_nothing_is_started_while_it_drains(platform):
    platform.ready()
    platform.serving("stubborn")
    platform.signal()
    assert platform.process.stderr.readline().startswith("bema: draining")
    assert platform.spawn(deployment="d2")["error"]["code"] == "unavailable"


def test_the_second_signal_ends_it_at_once(platform):
    platform.ready()
    pids = [platform.serving("stubborn"), *platform.pids()]
    platform.signal()
    assert platform.process.stderr.readline().startswith("bema: draining")
    platform.signal()
    assert platform.ended()[0] == 128 + signal.SIGTERM
    until(lambda: not any(map(alive, pids)))


def test_kill_9_of_the_keeper_ends_everything_and_frees_the_state(platform):
    platform.ready()
    pids = [platform.serving("parent"), *platform.pids()]
    pids += until(lambda: len(found := platform.printed()) == 2 and found)
    platform.signal(signal.SIGKILL)
    platform.process.wait()
    until(lambda: not any(map(alive, pids)), 5)
    again = Platform(platform.folder).ready()
    assert again.request("list")["ok"]["instances"] == []
    again.close()


def test_an_unknown_word_on_a_channel_is_noted_and_goes_no_further(platform):
    platform.ready()
    platform.serving("asking")
    until(lambda: any("'get_secret' is no word of it" in line["event"] for line in platform.log()))
    platform.request("stop", instance=platform.last, grace_ms=5000, reason="test")
    end = platform.event("exited")
    assert end["stopped"]
    assert platform._events == []


def test_a_kept_socket_outlives_kill_9_of_the_orchestrator(platform):
    """What an instance asks goes past the keeper, and the next orchestrator goes on where the last one ended."""
    platform.ready()
    ours, theirs = socket.socketpair()
    carried = {"operations": ours.fileno(), "operations_fd": theirs.fileno()}
    with ours, theirs:
        answer = platform.spawn(
            "operating", carried_too=carried, inherit=["lease_fd", "operations_fd"], keep=["operations"]
        )
        assert "ok" in answer, answer
        platform.event("announced")
        ours.settimeout(5)
        ours.sendall(b"one\n")
        assert ours.recv(100) == b"heard one\n"
        ours.sendall(b"two\n")  # the answer is not read any more
    platform.replace_orchestrator()
    [listed] = platform.request("list")["ok"]["instances"]
    assert listed["keep"] == ["operations"]
    platform.request("lend", instance=platform.last, name="operations")
    [delivery] = platform.descriptors.receive()
    with socket.socket(fileno=delivery.descriptor) as lent:
        lent.settimeout(5)
        lent.sendall(b"three\n")
        heard = b""
        while heard.count(b"\n") < 2:
            heard += lent.recv(100)
        assert heard == b"heard two\nheard three\n"
    platform.request("stop", instance=platform.last, grace_ms=5000, reason="test")
    assert platform.event("exited")["stopped"]


def test_of_a_module_on_stdio_both_pipes_are_its_launcher_s_and_outlive_the_orchestrator(platform):
    """The keeper neither reads nor writes them, says no Init, and stops the module by a signal."""
    platform.ready()
    (their_in, to_module), (from_module, their_out) = os.pipe(), os.pipe()
    carried = {"stdin": their_in, "stdout": their_out, "to_module": to_module, "from_module": from_module}
    answer = platform.spawn(
        "stdio", carried_too=carried, inherit=["lease_fd", "stdin", "stdout"], keep=["to_module", "from_module"]
    )
    assert "ok" in answer, answer
    for descriptor in (their_in, their_out):
        os.close(descriptor)
    with os.fdopen(to_module, "wb", 0) as writing, os.fdopen(from_module, "rb", 0) as reading:
        writing.write(b'{"module_id": "m"}\n')
        assert json.loads(reading.readline()) == {"op": "announce", "heard": {"module_id": "m"}}
        platform.request("announced", instance=platform.last, announce={"listen": ""})
    platform.replace_orchestrator()
    for name in ("to_module", "from_module"):
        platform.request("lend", instance=platform.last, name=name)
    to_module, from_module = (delivery.descriptor for delivery in platform.descriptors.receive())
    with os.fdopen(to_module, "wb", 0) as writing, os.fdopen(from_module, "rb", 0) as reading:
        writing.write(b'{"op": "heartbeat"}\n')
        assert json.loads(reading.readline())["heard"] == {"op": "heartbeat"}
    assert {"stderr of the module"} <= {line["event"] for line in platform.log()}
    platform.request("stop", instance=platform.last, grace_ms=5000, reason="test")
    end = platform.event("exited")
    assert (end["signal"], end["stopped"]) == (signal.SIGTERM, True)
