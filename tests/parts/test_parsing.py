"""The small grammars: references, entry_points.txt, versions, the list of disabled plugins."""

from __future__ import annotations

import tomllib

import pytest

from bema.core.errors import Refused
from bema.core.versions import satisfies
from bema.parts.edit import with_disabled
from bema.parts.entries import canonical, key_of, read_reference
from bema.parts.scan import parse


def test_references() -> None:
    assert read_reference("a.b:C.D") == ("a.b:C.D", (), "")
    assert read_reference(" a : C [gpu, x] ") == ("a:C", ("gpu", "x"), "")
    assert read_reference("a.b") == ("a.b", (), "")
    for wrong in ("", "a b", "a..b:C", ":C", "a:", "1:C", "a:b:c"):
        assert "is not `module:Class`" in read_reference(wrong)[2]


def test_entry_points_keep_what_is_well_formed() -> None:
    groups, problems = parse("# c\n[g]\na = m:A\n b=m:B \nnot a line\n= x\n[h]\n[g]\nc = m:C\n")
    assert groups == {"g": [("a", "m:A"), ("b", "m:B"), ("c", "m:C")], "h": []}
    assert [problem[:7] for problem in problems] == ["line 5:", "line 6:"]
    assert parse("a = b")[1]


def test_names_are_compared_without_case_and_dashes() -> None:
    assert key_of("My-Chat") == key_of("my_chat") == "my_chat"
    assert canonical("Foo__Bar.baz") == "foo-bar-baz"
    with pytest.raises(TypeError):
        key_of(3)


@pytest.mark.parametrize(
    ("version", "requirement", "fits"),
    [
        ("2.4", ">=2,<3", True),
        ("3.0", ">=2,<3", False),
        ("3.0rc1", "<3", False),
        ("2.10", ">2.9", True),
        ("2.0", "==2", True),
        ("2.3.1", "==2.3.*", True),
        ("2.4", "!=2.4.*", False),
        ("2.4", "~=2.2", True),
        ("3.0", "~=2.2", False),
        ("2.4.1", "~=2.4.0", True),
        ("1.0a1", "<1.0", False),
        ("0.9", "<1.0", True),
    ],
)
def test_versions(version: str, requirement: str, fits: bool) -> None:
    assert satisfies(version, requirement) is fits


def test_a_requirement_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a version requirement"):
        satisfies("1", "two")
    with pytest.raises(ValueError, match="not a version"):
        satisfies("1", ">=x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "[plugins]\n",
        '# kept\n[plugins] # kept\nmode = "all"\ndisable = [\n  "old", # ] not the end\n]\n[other]\ndisable = ["kept"]\n',
        '[plugins.priority]\na = 1\n[ plugins ]\ndisable = ["x]"]',
    ],
)
def test_the_list_of_disabled_plugins_is_all_that_changes(text: str) -> None:
    changed = with_disabled(text, ("plugins",), ["a", 'b"c'])
    before, after = tomllib.loads(text), tomllib.loads(changed)
    assert after["plugins"].pop("disable") == ["a", 'b"c']
    before.setdefault("plugins", {}).pop("disable", None)
    assert after == before
    assert changed.count("# kept") == text.count("# kept")


def test_a_file_written_too_cleverly_is_left_alone() -> None:
    with pytest.raises(Refused):
        with_disabled('plugins = { disable = ["a"] }\n', ("plugins",), ["b"])
