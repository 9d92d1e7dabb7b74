"""Who asks is made of a credential, in one place, and may what its kind may."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bema
from bema.core.access import (
    GATEWAY,
    LOCAL_ADMIN,
    Credentials,
    Kind,
    Scope,
    acting_for,
    granted,
    holder,
    permitted,
)
from bema.core.errors import Denied

ADA, BOB = holder(Kind.USER, "ada"), holder(Kind.USER, "bob")
WORKER = holder(Kind.INSTANCE, "worker")


def test_a_credential_says_who_asks():
    credentials = Credentials({"secret": ADA, "other": BOB})
    assert credentials.principal("secret") is ADA
    assert credentials.principal("other") is BOB


@pytest.mark.parametrize("shown", ["", "secre", "secrets", "ada", "s\xe9cret"])
def test_what_is_no_credential_names_nobody(shown):
    assert Credentials({"secret": ADA}).principal(shown) is None


def test_an_empty_token_is_no_credential():
    assert Credentials({"": LOCAL_ADMIN}).principal("") is None


@pytest.mark.parametrize(
    ("principal", "may"),
    [
        (LOCAL_ADMIN, set(Scope)),
        (ADA, {Scope.READ, Scope.WRITE}),
        (GATEWAY, {Scope.ACTIVATE, Scope.CREDENTIALS}),
        (WORKER, set()),
        (None, set()),
    ],
)
def test_each_kind_may_what_it_may_and_nobody_nothing(principal, may):
    for scope in Scope:
        if scope in may:
            assert permitted(principal, scope) is principal
        else:
            with pytest.raises(Denied):
                permitted(principal, scope)


def test_who_sees_what():
    assert [p.sees("ada") for p in (LOCAL_ADMIN, ADA, BOB, GATEWAY, WORKER)] == [True, True, False, True, False]


def test_only_an_admins_credential_speaks_for_somebody_else():
    assert LOCAL_ADMIN.speaks_for(ADA)
    assert ADA.speaks_for(ADA)
    assert not ADA.speaks_for(BOB)
    assert not WORKER.speaks_for(LOCAL_ADMIN)


def test_an_administrator_acts_for_any_user_and_a_user_for_itself_alone():
    assert acting_for(LOCAL_ADMIN, "ada") == ADA
    assert acting_for(granted("ops", admin=True), "ops") == granted("ops")
    assert acting_for(LOCAL_ADMIN, "") is LOCAL_ADMIN
    assert acting_for(ADA, "ada") is acting_for(ADA, "") is ADA
    for who, other in ((ADA, "bob"), (WORKER, "ada"), (WORKER, "worker"), (GATEWAY, "ada")):
        with pytest.raises(Denied) as caught:
            acting_for(who, other)
        assert caught.value.code == "forbidden"


def test_a_principal_never_changes():
    with pytest.raises(AttributeError):
        ADA.subject = "bob"  # type: ignore[misc]


def test_principals_are_made_in_one_module():
    folder = Path(bema.__file__).parent
    made = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Principal", "holder")
    }
    assert made == {"core/access.py"}
