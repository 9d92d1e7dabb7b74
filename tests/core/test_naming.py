"""Names, addresses and ids: what is taken, what is refused, and that both ways of writing agree."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import BadDeclaration, Invalid
from bema.core.naming import (
    Address,
    check_deployment,
    check_endpoint,
    check_name,
    is_instance_label,
    new_instance_id,
    read_instance_id,
    show_instance_id,
)

letters = string.ascii_letters
names = st.text(letters, min_size=1, max_size=1).flatmap(
    lambda first: st.text(letters + string.digits + "_-", max_size=62).map(lambda rest: first + rest)
)
identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,62}", fullmatch=True)
ids = st.integers(0, 2**63 - 1)


@given(names)
def test_a_name_is_a_letter_then_letters_digits_underscores_and_dashes(name):
    assert check_name(name, "namespace") == name


@pytest.mark.parametrize("name", ["", "9lives", "a b", "a.b", "a" * 64, "ä", "a\n", "-a", None, 3])
def test_other_names_are_refused_with_the_offender(name):
    with pytest.raises(BadDeclaration, match="component") as caught:
        check_name(name, "component")
    assert repr(name) in str(caught.value)
    assert caught.value.code == "bad_name"


@pytest.mark.parametrize("name", ["generate", "_private", "x9"])
def test_an_endpoint_is_a_python_identifier(name):
    assert check_endpoint(name) == name


@pytest.mark.parametrize("name", ["", "with-dash", "9", "a" * 64, "größe", "a b", None])
def test_other_endpoints_are_refused(name):
    with pytest.raises(BadDeclaration, match="endpoint name"):
        check_endpoint(name)


@pytest.mark.parametrize("name", ["a", "api", "api-2", "0", "a" * 63])
def test_a_deployment_is_a_dns_label(name):
    assert check_deployment(name) == name


@pytest.mark.parametrize("name", ["", "Api", "api_2", "-api", "api-", "a" * 64, "a.b", "a\n", None])
def test_other_deployments_are_refused(name):
    with pytest.raises(Invalid, match="not a DNS label"):
        check_deployment(name)


@given(names, names, identifiers, st.none() | ids)
def test_an_address_reads_back_as_it_was_written(namespace, component, endpoint, instance):
    address = Address(namespace, component, endpoint, instance)
    assert Address.parse(str(address)) == address
    assert Address.parse(f"dyn://{address}") == address
    assert address.route == f"{namespace}.{component}.{endpoint}"


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "a.b.9", "a..c", ".b.c", "a.b.c@", "a.b.c@zz", "a.b.c@-1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(Invalid) as caught:
        Address.parse(text)
    assert caught.value.code == "bad_name"


@given(ids)
def test_an_instance_id_is_shown_in_thirteen_characters_and_read_back(value):
    shown = show_instance_id(value)
    assert len(shown) == 13
    assert read_instance_id(shown) == value
    assert is_instance_label(shown)
    assert not any(map(is_instance_label, (shown[1:], f"{shown}\n", f"{shown[1:]}z", f"{shown[1:]}A", "")))


@given(ids, ids)
def test_shown_ids_sort_as_the_ids_do(one, other):
    assert (show_instance_id(one) < show_instance_id(other)) == (one < other)


@given(st.integers(0, 10**12 - 1))
def test_an_instance_id_may_be_given_as_a_plain_number(value):
    assert read_instance_id(str(value)) == value


def test_new_ids_are_positive_fit_in_63_bits_and_differ():
    made = {new_instance_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(2**62 <= value < 2**63 for value in made)
