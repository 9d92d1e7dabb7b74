"""TOML is measured before it is parsed: what a stranger wrote takes time in proportion to its length."""

import tomllib
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings, strategies

from bema.core.errors import Invalid
from bema.deploy.sources.pep723 import read_metadata
from bema.deploy.sources.toml import DEPTH, PARTS, TomlError, parse
from tests.deploy.sources.hostile import KINDS, SCRIPTS, blocks, in_time, script_of


def key(parts: int) -> str:
    return ".".join("a" * parts) + " = 1"


def nested(depth: int) -> str:
    return "x = " + "[" * depth + "]" * depth


@pytest.mark.parametrize("text", [key(PARTS), nested(DEPTH), "a = 1.5\nb = ['1.2.3.4.5', \"x[y[z[\"]"])
def test_within_the_bounds_it_is_what_the_parser_says(text: str):
    assert parse(text) == tomllib.loads(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (key(PARTS + 1), f"a key has more than {PARTS} parts"),
        (" . ".join('"."' for _ in range(PARTS + 1)) + " = 1", f"a key has more than {PARTS} parts"),
        (nested(DEPTH + 1), f"nested deeper than {DEPTH} levels"),
        ("x = " + "{a = [" * DEPTH, f"nested deeper than {DEPTH} levels"),
    ],
)
def test_over_a_bound_the_limit_is_named_and_the_line(text: str, problem: str):
    with pytest.raises(TomlError, match=problem) as caught:
        parse(f"y = 1\n{text}")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    "text",
    [
        'x = """[[[[\n' + "[" * 99 + '"""',
        "x = '''" + "." * 99 + "'''",
        'x = """a"""""\ny = "' + "." * 99 + '"',
        r'x = "\"' + "." * 99 + '"',
        "# " + "." * 99,
        "\n".join(f"x{n} = [1.5, 2.5]" for n in range(99)),
    ],
)
def test_what_stands_in_a_string_or_a_comment_counts_nothing(text: str):
    assert parse(text) == tomllib.loads(text)


def test_an_integer_that_python_does_not_read_is_an_error_of_the_text():
    with pytest.raises(TomlError):
        parse("x = " + "9" * 5000)


def test_what_is_said_of_a_long_text_is_short():
    with pytest.raises(TomlError) as caught:
        parse(f"x = {{{'a' * 50_000} = 1, {'a' * 50_000} = 2}}")
    assert len(str(caught.value)) < 400


@given(strategies.text(alphabet="ab.=[]{}\"'#\\, \n", max_size=60))
def test_what_is_within_the_bounds_is_parsed_as_it_always_was(text: str):
    try:
        expected = tomllib.loads(text)
    except (ValueError, RecursionError):
        with pytest.raises(TomlError):
            parse(text)
    else:
        assert parse(text) == expected


@pytest.mark.parametrize("bomb", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", [1000, 60_000, 500_000])
def test_a_bomb_is_read_or_refused_in_time(bomb: Callable[[int], str], size: int):
    reads_in_time(script_of(bomb(size)))


@pytest.mark.parametrize("bomb", SCRIPTS.values(), ids=SCRIPTS)
def test_finding_the_block_takes_one_pass(bomb: Callable[[int], str]):
    reads_in_time(bomb(80_000))


@settings(max_examples=300, deadline=None)
@example(script_of('\\"\t' + '\\"""\\"\ta.b.c_\\u0041"' * 2250))
@given(blocks(60_000))
def test_no_bombs_together_do_more(code: str):
    reads_in_time(code)


def reads_in_time(code: str) -> None:
    with in_time():
        try:
            read_metadata(code)
        except Invalid as error:
            assert error.code in ("pep723_malformed", "pep723_unclosed", "pep723_duplicated")
            assert len(error.message) < 1000
