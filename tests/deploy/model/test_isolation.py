"""What is asked for of isolation: the platform's floor, and a script that may only ask for more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import Refused
from bema.core.settings import ISOLATION, read
from bema.deploy.model.isolation import NONE, STRICT, Isolation, ports_of

networks = st.none() | st.lists(st.integers(1, 65_535), max_size=4, unique=True).map(lambda ports: tuple(sorted(ports)))
isolations = st.builds(Isolation, kind=st.sampled_from(ISOLATION), network=networks)


def reaches(isolation: Isolation, port: int) -> bool:
    return isolation.network is None or port in isolation.network


@given(isolations, isolations, st.integers(1, 65_535))
def test_nothing_that_a_script_says_lowers_the_floor(script, floor, port):
    both = script.above(floor)
    assert ISOLATION.index(both.kind) == max(ISOLATION.index(each.kind) for each in (script, floor))
    for each in (port, *(script.network or ()), *(floor.network or ())):
        assert reaches(both, each) == (reaches(script, each) and reaches(floor, each))


def test_folders_are_for_the_platform_to_give():
    floor = Isolation(read=("/models",), write=("/srv/out",))
    asked = Isolation(read=("/",), write=("/root",)).above(floor)
    assert (asked.read, asked.write) == (floor.read, floor.write)


@pytest.mark.parametrize(
    ("text", "ports"), [("any", None), ("", None), ("none", ()), ("443", (443,)), ("443, 53,443", (53, 443))]
)
def test_a_network_is_any_none_or_ports(text, ports):
    assert ports_of(text) == ports


@pytest.mark.parametrize("text", ["all", "0", "65536", "443,", "80-90", "-1", "1.5", "\u00b2"])
def test_anything_else_is_no_network(text):
    with pytest.raises(ValueError, match="a network is any, none or ports"):
        ports_of(text)


def test_settings_say_what_every_script_has():
    set_so = {
        "BEMA_ISOLATION__KIND": "strict",
        "BEMA_ISOLATION__NETWORK": "53,443",
        "BEMA_ISOLATION__READ": "/models:/data",
    }
    found = Isolation.of(read(set_so, {}))
    assert found == Isolation(kind=STRICT, network=(53, 443), read=("/models", "/data"))
    assert Isolation.of(read({}, {})).kind == "standard"


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [("NETWORK", "everything", "a network is any"), ("WRITE", "data", "'data' does not begin with /")],
)
def test_a_setting_that_cannot_be_read_is_refused_with_its_origin(variable, text, says):
    with pytest.raises(Refused, match=says) as refused:
        Isolation.of(read({f"BEMA_ISOLATION__{variable}": text}, {}))
    assert f"BEMA_ISOLATION__{variable}" in refused.value.message


@pytest.mark.parametrize("folder", ["/", "/srv", "/srv/../srv/bema", "/srv/bema"])
def test_no_folder_that_holds_the_state_of_the_platform_is_given_away(folder):
    with pytest.raises(Refused, match="holds the state directory"):
        Isolation.of(read({"BEMA_STATE_DIR": "/srv/bema", "BEMA_ISOLATION__WRITE": folder}, {}))


def test_each_kind_says_what_a_machine_must_offer():
    levels = [Isolation(kind=kind).level for kind in ISOLATION]
    assert levels == ["basic", "basic", "network", "full"]
    assert Isolation(kind=NONE, network=()).level == "network"
    assert Isolation(kind=STRICT, network=()).level == "full"
