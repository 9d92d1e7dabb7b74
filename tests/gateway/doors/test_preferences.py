"""What a client would like of an answer, read from heads as the guard gives them."""

import pytest

from bema.core.errors import Invalid
from bema.gateway.doors.preferences import Preferences, idempotency_key
from bema.gateway.http.heads import RequestHead, read_request


def head(*lines: str) -> RequestHead:
    raw = "\r\n".join(("POST / HTTP/1.1", "Host: localhost", *lines, "", "")).encode("latin-1")
    return read_request(raw, 100)


@pytest.mark.parametrize(
    ("lines", "respond_async", "wait"),
    [
        ((), False, None),
        (("Prefer: respond-async",), True, None),
        (("Prefer: Respond-Async, wait=10",), True, 10),
        (("Prefer: wait=10", "Prefer: respond-async"), True, 10),
        (('Prefer: wait="7"',), False, 7),
        (("Prefer: wait=5, wait=9",), False, 5),
        (("Prefer: return=minimal; why=that, respond-async; q=1",), True, None),
        (('Prefer: note="a, respond-async", wait=0',), False, 0),
        (("Prefer: wait=soon",), False, None),
        (("Prefer: wait=-1",), False, None),
        (("Prefer: wait",), False, None),
        (("Prefer: ,,;, =",), False, None),
    ],
)
def test_what_a_client_prefers(lines, respond_async, wait):
    assert Preferences.of(head(*lines)) == (respond_async, wait)


@pytest.mark.parametrize(
    ("wanted", "seconds", "accepted", "ended"),
    [
        (Preferences(), None, "", ""),
        (Preferences(respond_async=True), 0.0, "respond-async", ""),
        (Preferences(wait=3), 3.0, "wait=3", "wait=3"),
        (Preferences(respond_async=True, wait=3), 3.0, "respond-async, wait=3", "wait=3"),
    ],
)
def test_what_of_it_is_applied(wanted, seconds, accepted, ended):
    assert (wanted.seconds(), wanted.applied(accepted=True), wanted.applied(accepted=False)) == (
        seconds,
        accepted,
        ended,
    )


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ((), ""),
        (('Idempotency-Key: "order 7"',), "order 7"),
        ((r'Idempotency-Key: "a \"b\" \\c"',), r'a "b" \c'),
        (("Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324",), "8e03978e-40d5-43dd-bc93-6894a57f9324"),
    ],
)
def test_a_key_is_quoted_or_bare(lines, key):
    assert idempotency_key(head(*lines)) == key


@pytest.mark.parametrize(
    "lines",
    [
        ("Idempotency-Key:",),
        ('Idempotency-Key: ""',),
        ('Idempotency-Key: "open',),
        ('Idempotency-Key: "a" "b"',),
        (f"Idempotency-Key: {'k' * 201}",),
        ("Idempotency-Key: a", "Idempotency-Key: b"),
    ],
)
def test_a_key_that_cannot_be_read_is_refused(lines):
    with pytest.raises(Invalid) as refused:
        idempotency_key(head(*lines))
    assert refused.value.code == "bad_request"
