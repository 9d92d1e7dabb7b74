"""Public listeners: what is refused, what gives way, what is kept."""

import socket

import msgspec
import pytest

from bema.core import settings
from bema.core.errors import Refused
from bema.deploy import ports


def given(**env: str) -> settings.Settings:
    return settings.read(env, {})


def test_a_port_that_was_asked_for_and_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=f"127.0.0.1:{port} .gateway.port, variable BEMA_GATEWAY__PORT") as refused:
            ports.bind(given(BEMA_GATEWAY__PORT=str(port)), "gateway", None)
        assert refused.value.code == "port_in_use"


def test_a_default_port_gives_way_to_the_kept_one_and_that_to_a_free_one(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        kept = free.getsockname()[1]
        free.close()
        default = msgspec.structs.replace(settings.SETTINGS["gateway.port"], default=taken.getsockname()[1])
        monkeypatch.setattr(
            settings, "_TABLE", tuple(default if row.name == "gateway.port" else row for row in settings._TABLE)
        )
        with ports.bind(given(), "gateway", kept).socket as listener:
            assert listener.getsockname()[1] == kept
            with ports.bind(given(), "gateway", kept).socket as other:
                assert other.getsockname()[1] not in (kept, taken.getsockname()[1])


def test_ports_are_kept_from_one_time_to_the_next(tmp_path):
    assert ports.kept_ports(tmp_path) == {}
    ports.keep_ports(tmp_path, {"gateway": 1, "control": 2})
    assert ports.kept_ports(tmp_path) == {"gateway": 1, "control": 2}
    (tmp_path / "ports.json").write_text("[]")
    assert ports.kept_ports(tmp_path) == {}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_where_no_key_is_asked_for_an_address_other_than_loopback_is_refused(host):
    with pytest.raises(Refused, match="asks for no key"):
        ports.bind(given(BEMA_GATEWAY__HOST=host), "gateway", None)


def test_where_keys_are_asked_for_any_address_of_the_machine_will_do():
    with ports.bind(given(BEMA_CONTROL__HOST="0.0.0.0", BEMA_CONTROL__PORT="0"), "control", None).socket as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    with pytest.raises(Refused, match="it is no address"):
        ports.bind(given(BEMA_CONTROL__HOST="example.org"), "control", None)
