"""Errors cross the wire as themselves where both sides know them, and by name where not."""

import pytest

from bema.core.errors import BemaError, Invalid, NotFound, Overloaded, ProtocolError, RemoteError
from bema.wire import codecs, failures


class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(item, left)
        self.item = item
        self.left = left


class Quota(BemaError):
    code = "overloaded"


def crossed(error, known=(), **more):
    return failures.rebuild(failures.read_failure(failures.pack_failure(error, **more)), failures.declared(known))


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def test_ours_come_back_by_code_with_details_and_hint():
    error = crossed(NotFound("no such thing", fix="look elsewhere", path="$.x"))
    assert type(error) is NotFound
    assert (error.message, error.fix, error.details) == ("no such thing", "look elsewhere", {"path": "$.x"})
    hint = crossed(Overloaded("full", retry_after=0.25))
    assert isinstance(hint, Overloaded)
    assert hint.retry_after == 0.25


@pytest.mark.parametrize(
    "error", [ValueError("bad", 3), KeyError("k"), OSError(2, "gone"), TimeoutError(), ZeroDivisionError("0")]
)
def test_builtin_exceptions_come_back_as_themselves(error):
    got = crossed(raised(error))
    assert type(got) is type(error)
    assert got.args == error.args
    assert "Traceback" in got.remote_traceback


def test_a_declared_exception_keeps_its_attributes_and_shows_the_remote_traceback():
    got = crossed(raised(OutOfStock("tea", 0)), [OutOfStock])
    assert isinstance(got, OutOfStock)
    assert (got.item, got.left) == ("tea", 0)
    assert "in raised" in vars(got)["remote_traceback"]
    assert any("raised by the service" in note for note in got.__notes__)


def test_an_undeclared_exception_is_named():
    got = crossed(raised(OutOfStock("tea", 0)))
    assert isinstance(got, RemoteError)
    assert got.type == "OutOfStock"
    assert "OutOfStock" in got.message
    assert "Traceback" in got.traceback


def test_a_declared_error_of_a_user_that_has_a_code_comes_back_with_it():
    got = crossed(raised(Quota("enough", used=3)), [Quota])
    assert isinstance(got, Quota)
    assert (got.code, got.details) == ("overloaded", {"used": 3})
    assert crossed(raised(Quota("enough"))).code == "overloaded"


def test_what_an_error_carries_never_makes_it_fail():
    error = ValueError(object(), {1, 2})
    vars(error)["socket"] = object()
    got = crossed(error)
    assert isinstance(got, ValueError)
    assert "object" in got.args[0]


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "UserWarning", "print", "BaseException"]
)
def test_a_peer_cannot_raise_what_ends_a_process(name):
    got = failures.rebuild(failures.Failure(code="remote_error", type=name, message="ha"), {})
    assert isinstance(got, RemoteError)


def test_attributes_cannot_reach_into_the_exception():
    failure = failures.Failure(code="remote_error", type="ValueError", attributes={"__class__": 1, "message": "x"})
    got = failures.rebuild(failure, {})
    assert type(got) is ValueError
    assert vars(got).get("message") == "x"
    ours = failures.rebuild(failures.Failure(code="not_found", message="m", attributes={"message": 1, "self": 2}), {})
    assert isinstance(ours, NotFound)


def test_an_unknown_code_is_internal_and_a_malformed_failure_a_protocol_error():
    unknown = failures.rebuild(failures.Failure(code="from the future", message="m"), {})
    assert isinstance(unknown, BemaError)
    assert unknown.code == "internal"
    for payload in (b"\xc1", None, codecs.pack({"code": 1})):
        with pytest.raises(ProtocolError):
            failures.read_failure(payload)


def test_a_refusal_is_marked():
    assert failures.read_failure(failures.pack_failure(Invalid("x"), refused=True)).refused
    assert not failures.read_failure(failures.pack_failure(Invalid("x"))).refused
