"""The table of errors: every row is complete, every class has its row, and an error survives being sent."""

from __future__ import annotations

import pytest

from bema.core import errors
from bema.core.errors import BemaError, Conflict, Overloaded, as_json, of_code
from bema.core.problems import PROBLEMS


def classes(base=BemaError):
    for cls in base.__subclasses__():
        if cls.__module__ == errors.__name__:
            yield cls
            yield from classes(cls)


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_code_says_what_and_how_to_mend_it_and_has_a_status_for_every_door(code):
    row = PROBLEMS[code]
    assert 400 <= row.http < 600
    assert 1 <= row.grpc <= 16
    assert row.exit in (1, 2, 3, 4, 130)
    assert row.says.endswith(".")
    assert row.fix.endswith(".")


@pytest.mark.parametrize("cls", sorted(set(classes()), key=str))
def test_every_class_has_its_row(cls):
    assert cls.code in PROBLEMS


def test_an_error_takes_its_texts_from_the_table():
    error = Conflict()
    assert str(error) == PROBLEMS["name_taken"].says
    assert error.fix == PROBLEMS["name_taken"].fix
    assert error.problem.http == 409


def test_an_error_may_say_it_better():
    error = Conflict("api is taken", code="already_served", fix="Rename it.", id="x1")
    assert (str(error), error.code, error.fix, error.details) == (
        "api is taken",
        "already_served",
        "Rename it.",
        {"id": "x1"},
    )


def test_the_body_of_an_http_answer_carries_code_message_fix_and_details():
    body = as_json(Conflict("taken", id="x1"), trace_id="t")
    assert body == {
        "error": {
            "code": "name_taken",
            "message": "taken",
            "fix": PROBLEMS["name_taken"].fix,
            "trace_id": "t",
            "id": "x1",
        }
    }


@pytest.mark.parametrize("code", PROBLEMS)
def test_an_error_that_arrives_has_its_code_and_message_again(code):
    error = of_code(code, "went wrong", id="x1")
    assert (error.code, error.message, error.details["id"]) == (code, "went wrong", "x1")
    assert error.problem is PROBLEMS[code]


@pytest.mark.parametrize("cls", [errors.Invalid, errors.NotFound, errors.Disconnected, errors.DeadlineExceeded])
def test_it_is_of_the_class_that_says_what_to_do(cls):
    assert type(of_code(cls.code, "went wrong")) is cls


@pytest.mark.parametrize(
    ("code", "family"),
    [
        ("key_reused", errors.Conflict),
        ("syntax_error", errors.Invalid),
        ("build_failed", errors.Failed),
        ("not_up", errors.Unavailable),
        ("state_unwritable", errors.Refused),
    ],
)
def test_whoever_catches_a_family_catches_what_arrives_from_elsewhere(code, family):
    assert type(of_code(code, "went wrong")) is family


def test_every_code_is_of_one_family():
    named = [code for codes in errors._Classes.families.values() for code in codes]
    assert len(named) == len(set(named))
    assert set(named) <= set(PROBLEMS)


def test_a_code_of_a_newer_peer_is_kept_aside():
    error = of_code("made_up", "went wrong")
    assert error.code == "internal"
    assert error.details["remote_code"] == "made_up"


def test_builtin_kinds_catch_ours():
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
    assert issubclass(errors.BadDeclaration, TypeError)


def test_an_overloaded_peer_says_when_to_come_back():
    assert Overloaded("full", retry_after=1.5).retry_after == 1.5
    assert BemaError("x").retry_after is None
