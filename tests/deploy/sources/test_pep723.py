"""The `# /// script` block: what it gives, and the three ways to get it wrong."""

import pytest
from hypothesis import given, strategies

from bema.core.errors import Invalid
from bema.core.versions import check_specifiers, satisfies
from bema.deploy.sources.pep723 import ScriptMetadata, read_metadata


def script(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def refused(code: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        read_metadata(code)
    return caught.value


def test_a_script_without_a_block_has_no_dependencies():
    assert read_metadata("print('hello')\n") == ScriptMetadata()


def test_the_block_gives_dependencies_python_and_entry():
    code = script(
        "#!/usr/bin/env python3",
        "# /// script",
        '# requires-python = ">=3.11,<4"',
        "# dependencies = [",
        '#   "six",',
        '#   "idna>=3",',
        "# ]",
        "#",
        "# [tool.bema]",
        '# entry = "api"',
        "# ///",
        "import six",
    )
    assert read_metadata(code) == ScriptMetadata(("six", "idna>=3"), ">=3.11,<4", "api", 10)


def test_windows_line_ends_and_other_blocks_and_other_tools_are_fine():
    code = script(
        "# /// other", "# not toml", "# ///", "# /// script", '# dependencies = ["six"]', "# [tool.uv]", "# ///"
    )
    assert read_metadata(code.replace("\n", "\r\n")).dependencies == ("six",)


def test_bad_toml_names_the_line_of_the_script():
    error = refused(script("import os", "# /// script", '# dependencies = ["six"', "# x = 1", "# ///"))
    assert (error.code, error.details["line"]) == ("pep723_malformed", 4)
    assert error.message.startswith("line 4: ")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('# dependencies = "six"', "dependencies"),
        ("# dependencies = [1]", "dependencies"),
        ("# requires-python = 3.11", "requires-python"),
        ('# requires-python = "three"', "requires-python"),
        ("# tool = 1", "tool"),
        ("# tool.bema.entry = 1", "entry"),
        ("# tool.bema.isolation = true", "isolation"),
        ('# tool.bema.isolation = "total"', "isolation"),
        ('# tool.bema.network = "everything"', "network"),
        ("# tool.bema.network = 443", "network"),
    ],
)
def test_a_wrong_type_names_the_key_and_its_line(line: str, key: str):
    error = refused(script("# /// script", "# x = 1", line, "# ///"))
    assert (error.code, error.details["line"]) == ("pep723_malformed", 3)
    assert key in error.message


def test_an_unclosed_block():
    error = refused(script("# /// script", '# dependencies = ["six"]', "import six"))
    assert (error.code, error.details["line"]) == ("pep723_unclosed", 1)


def test_a_block_cut_by_a_line_that_is_no_comment_is_unclosed():
    error = refused(script("", "# /// script", "# dependencies = []", "", "# ///"))
    assert (error.code, error.details["line"]) == ("pep723_unclosed", 2)


def test_an_opening_inside_an_open_block_leaves_the_first_unclosed():
    assert refused(script("# /// script", "# /// script", "# ///")).code == "pep723_unclosed"


@pytest.mark.parametrize("between", [[], [""], ["import os"], ["# a comment"]])
def test_a_second_block(between: list[str]):
    block = ["# /// script", "# dependencies = []", "# ///"]
    error = refused(script(*block, *between, *block))
    assert (error.code, error.details["line"]) == ("pep723_duplicated", 4 + len(between))


@given(strategies.text(alphabet="#/ scriptdependencies=[]\"'\n\t\r.-\u2028é", max_size=300))
def test_any_text_gives_metadata_or_one_of_the_three_errors(text: str):
    for code in (text, f"# /// script\n# {text}\n# ///\n"):
        try:
            read_metadata(code)
        except Invalid as error:
            assert error.code in ("pep723_malformed", "pep723_unclosed", "pep723_duplicated")
            assert error.details["line"] >= 1


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        (f'dependencies = ["{"a" * 4097}"]', "4096"),
        (f'requires-python = "{">=3," * 100}"', "256"),
        (f'tool.bema.entry = "{"a" * 257}"', "256"),
        ("#" * 65_536, "65536"),
        (".".join("a" * 17) + " = 1", "16 parts"),
        ("x = " + "[" * 33, "32 levels"),
    ],
)
def test_what_is_over_a_limit_is_refused_with_it(line: str, limit: str):
    error = refused(script("# /// script", f"# {line}", "# ///"))
    assert error.code == "pep723_malformed"
    assert limit in error.message


def test_an_entry_cannot_hold_what_an_argument_cannot():
    error = refused(script("# /// script", '# tool.bema.entry = "a\\u0000b"', "# ///"))
    assert (error.code, error.details["line"]) == ("pep723_malformed", 2)


def test_what_the_block_tells_uv_has_one_spelling():
    block = ("# [tool.uv]", "# no-index = true", '# find-links = ["/a"]')
    other = ('# tool.uv.find-links = ["/a"]', "# tool.uv.no-index = true")
    one, two = (read_metadata(script("# /// script", *lines, "# ///")).options for lines in (block, other))
    assert one == two == '{"find-links": ["/a"], "no-index": true}'
    assert read_metadata(script("# /// script", "# tool.uv.exclude-newer = 2026-01-01", "# ///")).options
    assert refused(script("# /// script", "# tool.uv = 1", "# ///")).code == "pep723_malformed"


def test_deep_nesting_is_malformed():
    assert refused(f"# /// script\n# x = {'[' * 20000}\n# ///\n").code == "pep723_malformed"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        (">=3.11", True),
        (">=3.12", False),
        (">3.11", True),
        ("==3.11.*", True),
        ("==3.11", False),
        ("!=3.11.*", False),
        ("~=3.11", True),
        ("~=3.10.2", False),
        (">=3.9, <3.11.7", False),
        (">=3.9,<=3.11.7,", True),
        ("===3.11.7", True),
        ("~=3.10.dev1", True),
        ("~=3.11rc1", True),
        ("~=2.7", False),
        ("<3.12rc1", True),
    ],
)
def test_specifiers(text: str, fits: bool):
    assert check_specifiers(text) == ""
    assert satisfies((3, 11, 7), text) is fits


@pytest.mark.parametrize("text", ["3.11", ">=three", "~=3", ">=3.*", ">= 3.11 <4", "=>3"])
def test_bad_specifiers_are_named(text: str):
    assert text.strip() in check_specifiers(text)
