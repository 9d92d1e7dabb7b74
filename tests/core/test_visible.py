"""Text from elsewhere cannot command a terminal, forge a line, or fail to be printed."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.visible import encodable, visible, visible_line

ANY = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 🙂", "plain é 漢 🙂"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("over\rwrite\b", "over\\x0dwrite\\x08"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
        ("a\tb\nc", "a\tb\nc"),
    ],
)
def test_what_would_be_obeyed_shows_as_what_it_is(text: str, shown: str):
    assert visible(text) == shown
    assert visible_line(text) == shown.replace("\n", "\\n")


@given(ANY)
def test_nothing_of_any_text_is_a_command_or_a_line_of_its_own(text: str):
    shown = visible_line(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\t"]
    assert len(shown.splitlines()) <= 1
    shown.encode()
    encodable(text).encode()


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp"))))
def test_other_text_stays_as_it_is(text: str):
    assert visible_line(text) == text
