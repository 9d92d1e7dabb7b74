"""Errors cross the wire as themselves where both sides know them, and by name where not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BemaError, Invalid, NotFound, Overloaded, ProtocolError, RemoteError
from bema.core.problems import PROBLEMS
from bema.wire.rpc import failures
from bema.wire.values import codecs


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


class Mute(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")

    __repr__ = __str__


class Vicious(BaseException):
    """Whatever is asked of it ends the process."""

    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def args(self):  # type: ignore[override]
        raise KeyboardInterrupt

    __repr__ = __str__


class Half(BemaError):
    def __init__(self) -> None:
        pass  # and none of what the base keeps


class NewlyMade(Exception):
    def __new__(cls, one, two):
        return super().__new__(cls, one, two)

    def __init__(self, one, two):
        super().__init__()
        self.both = one + two


class Slotted(Exception):
    __slots__ = ("__own", "left")

    def __init__(self, left):
        super().__init__()
        self.left = left
        self.__own = 2 * left

    def own(self):
        return self.__own


class Filed(OSError):
    def __init__(self, name):
        super().__init__(2, "gone", name)
        self.extra = 1


class Both(LookupError, OSError):
    pass


UNSPEAKABLE = [
    Mute(),
    Vicious("x"),
    Half(),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    ValueError("file \udcff"),
    ValueError({"a": ["\udcff"]}, b"\xff"),
    Invalid("\udcff", path="\udcff"),
    NotFound("x", **{"\udcff": 1}),  # type: ignore[arg-type]
    ExceptionGroup("g", [Mute(), ValueError("\udcff")]),
    BaseExceptionGroup("g", [KeyboardInterrupt()]),
    StopIteration(1),
]


@pytest.mark.parametrize("error", UNSPEAKABLE, ids=lambda error: type(error).__name__.encode(errors="replace").decode())
def test_whatever_can_be_raised_arrives(error):
    got = crossed(error, [type(error)])
    assert isinstance(got, Exception)
    assert isinstance(crossed(error), Exception)
    if not isinstance(got, Mute):
        str(got).encode()


def test_what_cannot_say_what_it_is_is_named():
    got = crossed(raised(Mute()))
    assert isinstance(got, RemoteError)
    assert got.message == "Mute: (its text cannot be had)"
    assert "in raised" in got.traceback
    assert crossed(Vicious()).type == "Vicious"
    assert crossed(Half()).type == "Half"


def test_text_that_is_no_utf8_is_readable():
    got = crossed(raised(ValueError("file \udcff", ["\udcff"])))
    assert type(got) is ValueError
    assert got.args == ("file \\udcff", "['\\udcff']")


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"),
        UnicodeEncodeError("ascii", "aä", 1, 2, "ordinal not in range(128)"),
        FileNotFoundError(2, "gone", "/a"),
        PermissionError(1, "no", b"/a", 0, "/b"),
        ModuleNotFoundError("No module named 'x'", name="x", path="/x"),
        NameError("name 'x' is not defined", name="x"),
        SyntaxError("invalid syntax", ("a.py", 3, 4, "x =", 3, 5)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_builtin_exception_says_survives(error):
    got = crossed(error)
    assert type(got) is type(error)
    assert str(got) == str(error)
    for name in ("filename", "filename2", "name", "path", "start", "reason"):
        if not isinstance(error, SyntaxError):
            assert getattr(got, name, None) == getattr(error, name, None)


def test_a_unicode_error_whose_text_cannot_travel_is_named():
    with pytest.raises(UnicodeEncodeError) as caught:
        "\udcff".encode()
    got = crossed(caught.value)
    assert isinstance(got, RemoteError)
    assert "surrogates not allowed" in got.message


@pytest.mark.parametrize("at", [(-(10**9), 3), (0, 10**9), (5, 2), (2**70, 2**70), ("0", 1), (0, 10)])
def test_a_peer_cannot_make_an_exception_read_beyond_its_text(at):
    for kind, text in (("UnicodeDecodeError", b"abc"), ("UnicodeEncodeError", "abc")):
        failure = failures.Failure(
            "remote_error", "m", type=kind, arguments=["utf-8", text, *at, "why"], attributes={"start": 9, "end": 10}
        )
        got = failures.rebuild(failure, {})
        assert isinstance(got, RemoteError)
        assert got.message == f"{kind}: m"


def test_no_constructor_of_a_declared_type_runs():
    got = crossed(NewlyMade(1, 2), [NewlyMade])
    assert isinstance(got, NewlyMade)
    assert got.both == 3
    both = crossed(Both("x"), [Both])
    assert type(both) is Both
    filed = crossed(Filed("/a"), [Filed])
    assert isinstance(filed, Filed)
    assert (str(filed), filed.filename, filed.extra) == ("[Errno 2] gone: '/a'", "/a", 1)


def test_attributes_in_slots_arrive():
    got = crossed(Slotted(5), [Slotted])
    assert isinstance(got, Slotted)
    assert (got.left, got.own()) == (5, 10)


def test_a_group_arrives_as_a_group_of_what_was_in_it():
    inner = ExceptionGroup("inner", [OutOfStock("tea", 0), KeyError("k")])
    got = crossed(raised(ExceptionGroup("outer", [ValueError("a"), inner])), [OutOfStock])
    assert type(got) is ExceptionGroup
    assert got.message == "outer"
    value, arrived = got.exceptions
    assert type(value) is ValueError
    assert isinstance(arrived, ExceptionGroup)
    stock, key = arrived.exceptions
    assert isinstance(stock, OutOfStock)
    assert (stock.left, key.args) == (0, ("k",))
    assert "in raised" in vars(got)["remote_traceback"]


def test_a_group_is_bounded_in_number_and_depth():
    many = crossed(ExceptionGroup("many", [ValueError(n) for n in range(100)]))
    assert isinstance(many, ExceptionGroup)
    assert len(many.exceptions) == failures.MEMBERS
    assert many.exceptions[-1].args == ("and 85 more exceptions",)
    deep: Exception = ValueError("bottom")
    for level in range(10):
        deep = ExceptionGroup(f"level {level}", [deep])
    got = crossed(deep)
    for _ in range(failures.DEPTH):
        assert isinstance(got, ExceptionGroup)
        (got,) = got.exceptions
    assert isinstance(got, RemoteError)
    assert got.type == "ExceptionGroup"


def test_a_group_that_ends_processes_is_named():
    got = crossed(BaseExceptionGroup("stop", [KeyboardInterrupt(), ValueError("a")]))
    assert isinstance(got, RemoteError)
    assert got.message == "BaseExceptionGroup: stop (2 sub-exceptions)"


def test_an_exception_that_says_too_much_is_cut():
    got = crossed(ValueError("x" * 50_000_000))
    assert type(got) is ValueError
    assert str(got).endswith("xxx ... (cut)")
    assert len(str(got)) < 2 * failures.TRACEBACK_LIMIT


@pytest.mark.parametrize("cls", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_process_is_not_raised_though_it_is_declared(cls):
    assert isinstance(crossed(cls(), [cls]), RemoteError)


words = st.text(max_size=5) | st.sampled_from(["message", "code", "fix", "details", "args", "self", "filename", "left"])
values = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.binary(max_size=5), lambda v: st.lists(v, max_size=5)
)
names = st.sampled_from(
    [*failures._BUILTIN, "OutOfStock", "NewlyMade", "Slotted", "Filed", "Both", "Quota", "Half", ""]
)


@given(st.data())
def test_whatever_a_peer_says_gives_an_exception(data):
    kind = st.builds(
        failures.Failure,
        code=st.sampled_from([*PROBLEMS, "other"]),
        message=st.text(max_size=5),
        type=names,
        arguments=st.lists(values, max_size=6),
        attributes=st.dictionaries(words, values, max_size=4),
    )
    failure = data.draw(kind)
    failure.members = data.draw(st.lists(kind, max_size=2))
    known = failures.declared([OutOfStock, NewlyMade, Slotted, Filed, Both, Quota, Half])
    got = failures.rebuild(failures.read_failure(codecs.pack(failure)), known)
    assert isinstance(got, Exception)


def test_a_failure_nested_without_end_is_a_protocol_error():
    head = codecs.pack({"code": "remote_error", "members": [None]})[:-1]
    with pytest.raises(ProtocolError):
        failures.read_failure(head * 100_000)
