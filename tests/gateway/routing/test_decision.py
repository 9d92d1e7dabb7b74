"""Where a request goes: a pure function of its head."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BemaError
from bema.gateway.routing.decision import Forward, Hosts, decide

ID = "0b9a7a3c-1111-4222-8333-123456789abc"
PREFIX = f"/gateway/{ID}".encode()


def to(target: bytes, host: bytes = b"127.0.0.1:8700", origin: bytes | None = None, *, loopback: bool = True):
    return decide(target, host, origin, Hosts() if loopback else Hosts("0.0.0.0"))


def status(decision) -> int:
    assert isinstance(decision, BemaError)
    return decision.problem.http


@given(st.uuids(), st.text([chr(c) for c in range(0x21, 0x7F) if chr(c) != "#"], max_size=40))
def test_what_follows_the_id_passes_byte_for_byte(deployment: uuid.UUID, rest: str):
    decision = to(f"/gateway/{deployment}/{rest}".encode())
    assert decision == Forward(str(deployment), f"/gateway/{deployment}".encode(), b"/" + rest.encode())


def test_an_id_without_a_slash_is_its_root():
    assert to(PREFIX) == Forward(ID, PREFIX, b"/")
    assert to(PREFIX + b"?a=b") == Forward(ID, PREFIX, b"/?a=b")


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/gateway",
        b"/gateway/",
        b"/gateway/worker",
        b"/gateway/worker/mcp",
        b"/other/" + ID.encode(),
        b"/gatewayx/" + ID.encode(),
        PREFIX + b"0/",
        PREFIX[:-1] + b"/",
        PREFIX.upper().replace(b"GATEWAY", b"gateway") + b"/",
        b"*",
    ],
)
def test_what_names_no_deployment_is_unknown(target):
    assert status(to(target)) == 404


@pytest.mark.parametrize(
    "target",
    [
        b"/gateway%2f" + ID.encode() + b"/",
        b"/gateway/%00" + ID.encode() + b"/",
        b"/gateway/..%5c" + ID.encode() + b"/",
        b"/x/../gateway/" + ID.encode() + b"/",
        b"/gateway/./" + ID.encode() + b"/",
        b"/gateway//" + ID.encode() + b"/",
        b"//gateway/" + ID.encode() + b"/",
        b"/gateway/%2e%2e/" + ID.encode() + b"/",
        b"/gateway\\" + ID.encode() + b"/",
        b"/gateway/%252f" + ID.encode() + b"/",
    ],
)
def test_a_path_that_has_a_second_reading_is_refused(target):
    assert status(to(target)) == 400


@given(st.binary(max_size=60), st.binary(max_size=20), st.one_of(st.none(), st.binary(max_size=20)))
def test_every_request_is_decided(target, host, origin):
    decision = to(target, host, origin)
    assert isinstance(decision, Forward) or decision.problem.http in (400, 403, 404)


@given(st.text([chr(c) for c in range(0x21, 0x7F) if chr(c) not in "#?"], max_size=60))
def test_only_the_canonical_spelling_reaches_a_deployment(path):
    decision = to(b"/" + path.encode())
    assert not isinstance(decision, Forward) or path.startswith("gateway/")


@pytest.mark.parametrize(
    "host", [b"127.0.0.1", b"127.0.0.1:8700", b"localhost:1", b"LocalHost", b"x.localhost", b"[::1]:8700"]
)
def test_this_machine_is_known_by_its_loopback_names(host):
    assert isinstance(to(PREFIX, host), Forward)
    assert isinstance(to(PREFIX, host, b"http://" + host), Forward)


@pytest.mark.parametrize(
    "host", [b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil.example", b"evil:8700", b"10.0.0.1"]
)
def test_a_foreign_host_or_origin_is_refused_on_loopback(host):
    assert status(to(PREFIX, host)) == 403
    assert status(to(PREFIX, origin=b"http://" + host)) == 403


@pytest.mark.parametrize(
    "origin", [b"null", b"", b"file://", b"http://", b"http://localhost/path", b"http://a@localhost"]
)
def test_an_origin_that_is_none_is_foreign(origin):
    assert status(to(PREFIX, origin=origin)) == 403


def test_a_public_listener_is_called_by_any_name():
    assert isinstance(to(PREFIX, b"bema.example:443", b"https://elsewhere.example", loopback=False), Forward)


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize("host", [b"Bema.Example", b"bema.example:8443", b"other", b"127.0.0.1:1", b"localhost"])
def test_a_listener_whose_names_are_set_is_called_by_these_and_the_loopback_ones(bound, host):
    hosts = Hosts(bound, "bema.example, OTHER")
    assert hosts.refusal(host, None) is None
    assert hosts.refusal(host, b"https://" + host) is None
    for foreign in (b"evil.example", b"xbema.example", b"bema.example.evil", b"bema.example:x"):
        assert hosts.refusal(foreign, None) is not None
        assert hosts.refusal(host, b"http://" + foreign) is not None


def test_the_address_that_a_listener_is_bound_to_is_a_name_of_it():
    assert Hosts("10.0.0.1", "a").refusal(b"10.0.0.1:8700", None) is None
    assert Hosts("fd00::1", "a").refusal(b"[fd00::1]:8700", None) is None
