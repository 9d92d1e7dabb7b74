"""A key is told once; from then on its digest finds its holder, and a checksum tells a key from any other text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.access import Kind
from bema.core.errors import Invalid
from bema.core.keys import ApiKey, Keyring, check_user, digest_of, looks_like_a_key, new_key

NOW = 1_700_000_000_000_000


def known(text: str, **more: object) -> ApiKey:
    return ApiKey(name="ci", user="ada", digest=digest_of(text), **more)  # type: ignore[arg-type]


def test_each_key_is_new_and_looks_like_one():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("bema_") and looks_like_a_key(key) for key in keys)


@given(st.integers(0, 55), st.characters(codec="ascii", categories=["L", "N"]))
def test_a_key_with_another_character_is_none(place: int, character: str):
    key = new_key()
    other = key[:place] + character + key[place + 1 :]
    assert looks_like_a_key(other) is (other == key)


@given(st.text())
def test_no_text_fails_the_look(text: str):
    assert not looks_like_a_key(text)
    assert Keyring().principal(text, NOW) is None


def test_who_shows_a_key_in_force_is_its_holder():
    key, admins = new_key(), new_key()
    ring = Keyring()
    ring.hold([known(key), ApiKey(name="ops", user="eve", digest=digest_of(admins), admin=True)])
    found, admin = ring.principal(key, NOW), ring.principal(admins, NOW)
    assert found is not None
    assert (found.subject, found.kind) == ("ada", Kind.USER)
    assert admin is not None
    assert (admin.subject, admin.kind) == ("eve", Kind.ADMIN)
    assert ring.principal(new_key(), NOW) is None
    assert (ring.digest("ci"), ring.digest("none")) == (digest_of(key), "")
    ring.hold([])
    assert ring.principal(key, NOW) is None


def test_a_key_ends_at_its_instant():
    key, ring = new_key(), Keyring()
    ring.hold([known(key, expires=NOW)])
    assert ring.principal(key, NOW - 1) is not None
    assert ring.principal(key, NOW) is None


def test_what_is_known_of_a_key_shows_no_digest():
    assert digest_of("x") not in repr(known("x"))


@pytest.mark.parametrize("name", ["ada", "a.b+c@d-e_f", "9", "A" * 63])
def test_names_of_users(name: str):
    assert check_user(name) == name


@pytest.mark.parametrize("name", ["", ".a", "a/b", "a b", "a\n", "A" * 64, "\xe4"])
def test_what_is_no_name_is_refused(name: str):
    with pytest.raises(Invalid) as caught:
        check_user(name, "key name")
    assert caught.value.code == "bad_name"
    assert "key name" in caught.value.message
