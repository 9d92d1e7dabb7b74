import os
import socket
import stat

import pytest

from bema.deploy.keeper.listeners import Listeners, sweep


@pytest.fixture
def listeners():
    listeners = Listeners()
    yield listeners
    listeners.close_all()


def test_a_slot_keeps_its_listener(listeners, tmp_path):
    address = f"unix:{tmp_path}/x/s.sock"
    first = listeners.open("d1", address)
    assert listeners.open("d1", "unix:/elsewhere") == first
    assert stat.S_IMODE((tmp_path / "x" / "s.sock").stat().st_mode) == 0o600


def test_what_a_dead_keeper_left_lies_in_nobodys_way(listeners, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s.sock"))
    listeners.open("d1", f"unix:{tmp_path}/s.sock")
    listeners.close("d1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_port_0_says_what_it_got(listeners, host):
    address, listener = listeners.open("d1", f"tcp:{host}:0")
    assert address.endswith(f":{listener.getsockname()[1]}")


@pytest.mark.parametrize("address", ["udp:1", "tcp:localhost", "nonsense", "tcp:127.0.0.1:x"])
def test_what_is_no_address_is_refused(listeners, address):
    with pytest.raises(ValueError, match="is not an address"):
        listeners.open("d1", address)


def test_an_address_in_use_is_an_os_error_and_leaves_the_slot_free(listeners):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        listeners.open("d1", f"tcp:127.0.0.1:{taken.getsockname()[1]}")
    assert listeners.open("d1", "tcp:127.0.0.1:0")


def test_a_sweep_takes_the_sockets_of_the_dead_and_no_others(listeners, tmp_path):
    listeners.open("d1", f"unix:{tmp_path}/lives.sock")
    for name in ("dead.sock", "bound-just-now.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / name))
    (tmp_path / "file.sock").touch()
    (tmp_path / "other").touch()
    for name in ("lives.sock", "dead.sock", "file.sock", "other"):
        os.utime(tmp_path / name, (1, 1))
    assert sweep(tmp_path) == [tmp_path / "dead.sock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bound-just-now.sock",
        "file.sock",
        "lives.sock",
        "other",
    ]
    assert sweep(tmp_path / "none") == []
