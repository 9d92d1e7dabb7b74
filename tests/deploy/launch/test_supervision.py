import pytest

from bema.core.errors import ProtocolError
from bema.core.instance import State
from bema.deploy.launch.supervision import Supervision, found_at
from bema.deploy.model.replica import Replica

DEPLOYMENT = "5f0c2a44-7d0e-4f0e-9c55-7a6c3f1f1b11"


def supervised(kind):
    replica = Replica(
        instance=7,
        deployment=DEPLOYMENT,
        version="v1",
        state=State.STARTING,
        since=1,
        name="api",
        kind=kind,
        pid=42,
        listen="unix:/s",
    )
    return Supervision(replica, process_start=9, token="secret")


@pytest.fixture
def seen():
    return supervised("app")


def test_what_it_announces_is_shown_with_what_it_was_told(seen):
    record = seen.announced({"listen": "/s", "endpoints": [], "kind": "asgi", "phases": {"import": 3}}, now=5)
    assert seen.replica.state is State.SERVING
    assert (record.id, record.deployment, record.version, record.component) == (7, DEPLOYMENT, "v1", "api")
    assert (record.pid, record.process_start, record.token, record.since) == (42, 9, "secret", 5)
    assert record.lane == "deployment/api"
    assert record.addresses == {"http": ("unix:/s",)}
    assert record.data == {"kind": "asgi", "phases": {"import": 3}}


def test_a_service_is_reached_by_rpc():
    assert supervised("service").announced({"listen": "/s", "endpoints": []}, now=5).addresses == {"rpc": ("unix:/s",)}


def test_addresses_that_it_names_itself_are_taken(seen):
    said = found_at("tcp:127.0.0.1:4100", {})
    assert seen.announced(said, now=5).addresses == {"http": ("tcp:127.0.0.1:4100",)}
    assert said["listen"] == "127.0.0.1:4100"


def test_it_drains_before_it_goes(seen):
    seen.announced({"listen": "/s", "endpoints": []}, now=5)
    assert seen.draining().state is State.DRAINING
    assert seen.ended(0, None, stopped=True) == ("stopped", "it ended with code 0")
    assert seen.replica.state is State.GONE


def test_what_never_served_shows_no_record(seen):
    assert seen.draining() is None


@pytest.mark.parametrize("serving", [False, True])
def test_an_end_that_nobody_asked_for_is_a_failure(seen, serving):
    if serving:
        seen.announced({"listen": "/s", "endpoints": []}, now=5)
    assert seen.ended(None, 9, stopped=False) == ("exited", "it was ended by SIGKILL")
    assert seen.replica.state is State.FAILED


def test_a_fault_of_its_own_outweighs_that_we_ended_it(seen):
    seen.fault = ("start_timeout", "it did not listen within 30 s")
    assert seen.ended(None, 9, stopped=True) == seen.fault
    assert seen.replica.state is State.FAILED


def test_an_announcement_that_cannot_be_read_is_refused(seen):
    with pytest.raises(ProtocolError, match="endpoints"):
        seen.announced({"listen": "/s", "endpoints": "all"}, now=5)


def test_a_second_announcement_is_refused(seen):
    seen.announced({"listen": "/s", "endpoints": []}, now=5)
    with pytest.raises(ProtocolError, match="from serving to serving"):
        seen.announced({"listen": "/s", "endpoints": []}, now=6)


def announced(seen, **more):
    return seen.announced({"listen": "/s", "endpoints": [], "operations": [{"name": "ask"}], **more}, now=5)


def names(record):
    return [endpoint.name for endpoint in record.endpoints]


def test_what_it_says_while_it_serves_is_shown_until_it_says_otherwise(seen):
    announced(seen, phases={"import": 3})
    record = seen.told({"ready": False, "stalled": True, "operations": [{"name": "more"}], "data": {"load": 1}})
    assert (record.ready, record.stalled, names(record)) == (False, True, ["more"])
    assert record.data == {"kind": "app", "phases": {"import": 3}, "load": 1}
    assert (record.state, record.id, record.token, record.since) == (State.SERVING, 7, "secret", 5)
    record = seen.told({})
    assert (record.ready, record.stalled, names(record)) == (True, False, ["ask"])
    assert "load" not in record.data


def test_what_it_says_twice_is_written_once(seen):
    announced(seen)
    assert seen.told({"ready": True}) is None
    assert seen.told({"ready": False}) is not None
    assert seen.told({"ready": False}) is None


def test_what_it_says_before_it_announces_is_how_it_is_shown_first(seen):
    assert seen.told({"ready": False, "data": {"zone": "a"}}) is None
    record = announced(seen)
    assert (record.ready, record.data["zone"], names(record)) == (False, "a", ["ask"])


def test_nothing_that_it_says_brings_it_back_from_draining_or_from_the_end(seen):
    announced(seen)
    seen.draining()
    late = seen.told({"ready": False, "state": "serving", "id": 8, "token": "other", "addresses": {}})
    assert (late.state, late.id, late.token) == (State.DRAINING, 7, "secret")
    assert late.addresses == {"http": ("unix:/s",)}
    seen.ended(0, None, stopped=True)
    assert seen.told({"ready": True}) is None


@pytest.mark.parametrize(
    "status", [{"ready": "no"}, {"operations": "all"}, {"data": 3}, {"data": {"load": "x" * 300_000}}]
)
def test_a_status_that_cannot_be_read_or_held_changes_nothing(seen, status):
    announced(seen)
    before = seen.told({"stalled": True})
    with pytest.raises(ProtocolError, match="its status"):
        seen.told(status)
    assert seen.record == before


def test_the_digest_of_its_description_is_what_it_said_last(seen):
    assert announced(seen).digest == ""
    again = supervised("app")
    assert announced(again, digest="first").digest == "first"
    for said, digest in (({"ready": False}, "first"), ({"operations": [], "digest": "second"}, "second")):
        record = again.told(said)
        assert record is not None
        assert record.digest == digest
