"""Scripts that were written to break whoever reads them, and what reading one may cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

CEILING = 1.0
"""Seconds for a text that is read in at most a tenth of one here: other work on the machine included, a square is not."""

KEYS = "abcdefghijklmnopqrstuvwxyz"
KINDS = {
    "dotted": lambda n: ".".join("a" * n) + " = 1",
    "dotted with spaces": lambda n: " . ".join("a" * n) + " = 1",
    "quoted": lambda n: ".".join(['"a.b"'] * n) + " = 1",
    "quoted brackets": lambda n: ".".join(["'['"] * n) + " = 1",
    "header": lambda n: "[" + ".".join("a" * n) + "]",
    "header of tables": lambda n: "[[" + ".".join("a" * n) + "]]",
    "inline": lambda n: "x = {" + ".".join("a" * n) + " = 1}",
    "inline, several": lambda n: "x = {" + ", ".join(f"{'.'.join(KEYS[:16])}{i} = 1" for i in range(n // 38)) + "}",
    "arrays": lambda n: "x = " + "[" * n + "]" * n,
    "inline tables": lambda n: "x = " + "{a = " * n + "1" + "}" * n,
    "both": lambda n: "x = " + "[{a = " * n + "1" + "}]" * n,
    "headers": lambda n: "\n".join(f"[{'.'.join(KEYS[:16])}{i}]" for i in range(n // 34)),
    "keys": lambda n: "\n".join(f"{'.'.join(KEYS[:16])}{i} = 1" for i in range(n // 34)),
    "integer": lambda n: "x = " + "9" * n,
    "underscores": lambda n: "x = " + "1_" * n + "1",
    "fraction": lambda n: "x = 0." + "9" * n,
    "string": lambda n: 'x = "' + "\\u0041" * n + '"',
    "unclosed": lambda n: 'x = """' + '\\"""' * n,
    "quotes": lambda n: '"' * n,
    "quotes, spaced": lambda n: '""" ' * n,
    "comments": lambda n: "\n".join("#" * n),
    "spaces": lambda n: " " * n + "x",
    "spaces before a wrong entry": lambda n: "tool.bema.entry = 1\n" + " " * n,
    "dots before a wrong entry": lambda n: "." * n + "\ntool.bema.entry = 1",
    "requires": lambda n: f'requires-python = "{">=3," * n}"',
    "requires, digits": lambda n: f'requires-python = ">=3.{"9" * n}"',
    "requires, spaces": lambda n: f'requires-python = "{" " * n}x"',
    "entry": lambda n: f'tool.bema.entry = "{"a" * n}"',
    "entry with NUL": lambda n: 'tool.bema.entry = "a\\u0000b"',
    "requirement": lambda n: f'dependencies = ["six; {" or ".join(["os_name == 1"] * n)}"]',
    "requirements": lambda n: "dependencies = [" + '"six",' * n + "]",
    "no text": lambda n: "\x00" * n,
}
SCRIPTS = {
    "openings": lambda n: "# /// script\n" * n,
    "all but openings": lambda n: "# /// scripts\n" * n,
    "openings within lines": lambda n: "x # /// script" * n,
    "closings": lambda n: "# /// script\n" + "# ///\n" * n,
    "a run without an end": lambda n: "# /// script\n" + "#\n" * n,
    "a run and an end": lambda n: "# /// script\n" + "#\n" * n + "# ///\n",
    "one line": lambda n: "# /// script\n# " + "/" * n,
    "line ends": lambda n: "\r\n" * n,
}

CODE = {
    "statements": lambda n: "x;" * n,
    "lines": lambda n: "x = 1\n" * n,
    "calls": lambda n: "f(x)\n" * n,
    "numbers": lambda n: "x = [" + "1," * n + "]",
    "sum": lambda n: "x = " + "+".join("1" * n),
    "signs": lambda n: "x = " + "-" * n + "1",
    "not": lambda n: "x = " + "not " * n + "1",
    "parentheses": lambda n: "(" * n + ")" * n,
    "attributes": lambda n: "x" + ".a" * n,
    "subscripts": lambda n: "x" + "[0]" * n,
    "lambdas": lambda n: "x = " + "lambda: " * n + "1",
    "branches": lambda n: "if a: 0\n" + "elif a: 0\n" * n,
    "some branches": lambda n: "if a: 0\n" + "elif a: 0\n" * (n // 100),
    "comparisons": lambda n: "x = " + "1 < " * n + "1",
    "functions": lambda n: "def f(): 0\n" * n,
    "parameters": lambda n: "def f(" + ", ".join(f"a{i}" for i in range(n)) + "): 0",
    "formats": lambda n: "x = f'" + "{a}" * n + "'",
    "nested formats": lambda n: "x = " + "f'{" * n,
    "strings": lambda n: "x = " + "'a' " * n,
    "cases": lambda n: "match x:\n" + " case 1: 0\n" * (n // 2),
    "indentation": lambda n: "".join(" " * i + "if 1:\n" for i in range(min(n, 1000))),
    "tries": lambda n: "try: 0\nexcept: 0\n" * (n // 2),
    "withs": lambda n: "with " + ", ".join("a" * n) + ": 0",
    "digits": lambda n: "x = " + "9" * n,
    "power": lambda n: "x = 9 ** 9 ** 9 ** 9 ** 9",
    "repetition": lambda n: "x = 'a' * 9 ** 9 * 9 ** 9",
    "continued": lambda n: "\\\n" * n,
    "a name": lambda n: "x" * n,
    "a wide name": lambda n: "\u212b" * n,
    "names": lambda n: "".join(f"a{i} = 1\n" for i in range(n // 2)),
    "punycode": lambda n: "# coding: punycode\n" + "x" * n,
    "idna": lambda n: "# coding: idna\nx = '" + "a." * n + "'",
}


def script_of(toml: str) -> str:
    return "# /// script\n" + "".join(f"# {line}\n" for line in toml.split("\n")) + "# ///\n"


ATOMS = [
    *(
        "a",
        ".",
        "=",
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        '"""',
        "'''",
        "\\",
        "\n",
        "#",
        " ",
        ",",
        "1",
        "_",
        "e",
        "0x",
        "-",
        ":",
    ),
    *(
        "T",
        "\\u0041",
        '\\"',
        "a.b.c",
        "[[a]]",
        "x = 1",
        "dependencies",
        "entry",
        "tool.bema",
        "é",
        "\u2028",
        "\r",
        "\t",
    ),
]


def blocks(most: int) -> SearchStrategy[str]:
    """Scripts whose block is one or two kinds of bomb, of any size up to `most`, or a piece of TOML again and again."""
    parts = strategies.tuples(strategies.sampled_from(sorted(KINDS)), strategies.integers(1, most)).map(
        lambda chosen: KINDS[chosen[0]](chosen[1])
    )
    some = strategies.lists(strategies.sampled_from(ATOMS), max_size=8).map("".join)
    repeated = strategies.tuples(some, some, some).map(
        lambda chosen: chosen[0] + chosen[1] * (most // (len(chosen[1]) + 1)) + chosen[2]
    )
    bombs = strategies.lists(parts, min_size=1, max_size=2).map("\n".join)
    return (bombs | repeated).map(script_of)


@contextlib.contextmanager
def in_time(seconds: float = CEILING) -> Iterator[None]:
    """What is done takes no longer; processor time, since other processes have theirs."""
    begun = time.process_time()
    yield
    assert time.process_time() - begun < seconds
