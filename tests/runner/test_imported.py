"""What a script imports, as it is told: what is there, and for a program what stands in its source."""

from __future__ import annotations

import os
import sys

import pytest

from bema.runner import imported


@pytest.fixture
def told(tmp_path):
    script, number = tmp_path / "script.py", os.memfd_create("imports")

    def tell(source):
        script.write_text(source)
        imported.tell(number, script)
        return os.pread(number, 1 << 20, 0).partition(b"\0")[0].decode().split("\n")

    yield tell
    os.close(number)


def test_modules_are_told_in_the_order_of_their_import(told):
    names = told("")
    assert names == [name for name in dict.fromkeys(sys.modules) if name in names]
    assert {"os", "sys", "pytest"} <= set(names)
    assert "__main__" not in names


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import one_a", ["one_a"]),
        ("import one_a.b, two_a as t", ["one_a.b", "two_a"]),
        ("def f():\n    from one_a.b import c as d, e", ["one_a.b", "one_a.b.c", "one_a.b.e"]),
        ("from one_a import (b, c)", ["one_a", "one_a.b", "one_a.c"]),
        ("from one_a import (\n    b,\n)", ["one_a"]),
        ("from one_a import *", ["one_a"]),
        ("from . import one_a", []),
        ("x = 'import one_a'", []),
        ("import", []),
    ],
)
def test_what_stands_in_a_source_is_told_after_them(told, source, names):
    assert told(source)[len(told("")) :] == names


def test_a_shorter_list_replaces_a_longer_one(told):
    told("import one_a, two_a")
    assert "two_a" not in told("import one_a")


def test_nothing_is_told_to_nobody():
    imported.tell(None)
