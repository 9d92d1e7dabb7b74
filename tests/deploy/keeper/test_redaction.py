"""A log without the secrets of who writes it, kept by who does not know them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.deploy.keeper.lines import Cut
from bema.deploy.keeper.logs import Bounds, Log
from bema.deploy.keeper.redaction import HIDDEN, LEAST, Redactor, told

TOKEN, URL, KEY = "s3cr3t-T0ken==", "postgres://ada:p4ss@db/x?y=1", "-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----"


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (TOKEN, HIDDEN),
        (f"token={TOKEN}", f"token={HIDDEN}"),
        (f'{{"token": "{TOKEN}", "n": 1}}', f'{{"token": "{HIDDEN}", "n": 1}}'),
        (f"Bearer {TOKEN}, twice {TOKEN}.", f"Bearer {HIDDEN}, twice {HIDDEN}."),
        (f"cannot reach {URL}: refused", f"cannot reach {HIDDEN}: refused"),
        ("MIIEvQIBADANBg", HIDDEN),
        ("nothing to hide: s3cr3t, T0ken, postgres", "nothing to hide: s3cr3t, T0ken, postgres"),
        ("", ""),
    ],
)
def test_a_secret_in_a_line_is_left_out(line: str, written: str):
    assert Redactor(told([TOKEN, URL, KEY]))(line) == written


def test_what_the_keeper_is_told_holds_no_value_and_differs_at_each_start():
    one, other = told([TOKEN]), told([TOKEN])
    assert TOKEN not in json.dumps(one)
    assert set(one["digests"]).isdisjoint(other["digests"])


def test_what_is_too_short_is_no_secret():
    assert told(["yes", "a" * (LEAST - 1), ""])["digests"] == []
    assert Redactor(told(["yes"]))("yes it is") == "yes it is"


@given(st.text(min_size=LEAST, max_size=30).filter(lambda text: len(text.splitlines()) == 1), st.text(), st.text())
def test_a_secret_between_spaces_never_stays(secret: str, before: str, after: str):
    written = Redactor(told([secret]))(f"{before} {secret} {after}")
    assert f" {secret} " not in f" {written} " or secret in f"{before} {HIDDEN} {after}"


def test_the_log_and_its_tail_are_without_it(tmp_path: Path):
    log = Log(tmp_path / "x.ndjson", Bounds(1000, 10_000, 1), Redactor(told([TOKEN])))
    record = json.dumps({"event": f"got {TOKEN}", "level": "error"})
    log.write("stdout", [Cut(f"plain {TOKEN}".encode(), 0), Cut(record.encode(), 0)])
    log.close()
    assert [each["event"] for each in log.tail] == [f"plain {HIDDEN}", f"got {HIDDEN}"]
    assert TOKEN not in (tmp_path / "x.ndjson").read_text()
