"""What a script says of itself in its `# /// script` block (PEP 723, inline script metadata).

Laws: no block means no dependencies; a block that is not exactly one whole block of valid TOML is refused before anything
runs, and the three ways to get it wrong are three errors, each with its line. Reading takes time in proportion to the script,
whoever wrote it: the block is cut out by searching, not by lines, and is parsed only within its limit. Pure: text in,
`ScriptMetadata` out.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from bema.core.errors import Invalid
from bema.core.limits import DEFAULTS
from bema.core.redaction import hides
from bema.core.versions import check_specifiers
from bema.deploy.model.function import FunctionSettings
from bema.deploy.sources.function_table import read_function
from bema.deploy.sources.toml import TomlError, parse

OPENING = "# /// script"
CLOSING = "# ///"
LONGEST_REQUIREMENT = 4096
LONGEST_SPECIFIERS = 256
LONGEST_ENTRY = 256
_RUN = re.compile(r"(?:#(?: [^\n]*+)?+(?:\n|\Z))*+")
"""Lines that may be part of a block."""


class ScriptMetadata(msgspec.Struct, frozen=True):
    """What of the block concerns us; uv reads the block itself when it locks. `options` is its table for uv, in one spelling:
    how packages are built makes them others."""

    dependencies: tuple[str, ...] = ()
    requires_python: str = ""
    entry: str = ""
    entry_line: int = 0
    options: str = ""
    settings: FunctionSettings = FunctionSettings()
    env: dict[str, str] = {}
    __repr__ = hides("env")


def read_metadata(code: str, most: int = DEFAULTS.script_block) -> ScriptMetadata:
    """The metadata of a script, or `Invalid` (pep723_malformed, pep723_unclosed, pep723_duplicated) with its `line`.

    A block of more than `most` bytes is malformed.
    """
    # a block that was written on Windows is the same block
    text = code.replace("\r\n", "\n")
    opening = _find_line(text, OPENING)
    if opening < 0:
        return ScriptMetadata()
    body = opening + len(OPENING) + 1
    end = _closing(text, body)
    second = _find_line(text, OPENING, body)
    # the reference takes the last closing line of the run, which may belong to a block that opened
    # meanwhile
    if 0 <= second < end and not 0 <= _find_line(text, CLOSING, body) < second:
        end = -1
    if end < 0:
        line = _line_at(text, opening)
        message = f"line {line}: the block opened by {OPENING!r} has no closing {CLOSING!r}"
        raise Invalid(message, code="pep723_unclosed", line=line)
    if second >= 0:
        line = _line_at(text, second)
        message = f"line {line}: a second {OPENING!r} block; the first is on line {_line_at(text, opening)}"
        raise Invalid(message, code="pep723_duplicated", line=line)
    return _Block(text[body:end], _line_at(text, opening), most).metadata()


def has_block(code: str) -> bool:
    return _find_line(code.replace("\r\n", "\n"), OPENING) >= 0


def _find_line(text: str, line: str, start: int = 0) -> int:
    """Where the line stands that is `line` and nothing else; -1 where there is none."""
    at = text.find(line, start)
    while at >= 0:
        end = at + len(line)
        if (at == 0 or text[at - 1] == "\n") and (end == len(text) or text[end] == "\n"):
            return at
        at = text.find(line, end)
    return -1


def _closing(text: str, body: int) -> int:
    """Where the last closing line of the run of comment lines from `body` on stands, as the reference regular expression
    finds it; -1 when there is none."""
    found = _RUN.match(text, min(body, len(text)))
    end = len(text) if found is None else found.end()
    at = f"\n{text[body:end]}\n".rfind(f"\n{CLOSING}\n")
    return -1 if at < 0 else body + at


def _line_at(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


class _Block:
    """The text between opening and closing; the opening is on line `before` of the script."""

    def __init__(self, text: str, before: int, most: int) -> None:
        self._before = before
        # before the lines are made: each is an object of fifty bytes besides its text
        if (size := len(text.encode(errors="surrogatepass"))) > most:
            raise self._malformed(before, f"it has {size} bytes; the limit is {most}")
        self._toml = [line[2:] for line in text.split("\n")[:-1]]

    def metadata(self) -> ScriptMetadata:
        table = self._parse()
        dependencies = table.get("dependencies", [])
        if not isinstance(dependencies, list) or not all(isinstance(d, str) for d in dependencies):
            raise self._wrong("dependencies", "must be a list of strings")
        # what is in a requirement is uv's to judge, in a process that is bounded
        for dependency in dependencies:
            self._check_length("dependencies", dependency, LONGEST_REQUIREMENT)
        requires = self._text(table, "requires-python", LONGEST_SPECIFIERS)
        if problem := check_specifiers(requires):
            raise self._wrong("requires-python", problem)
        tools = self._table(table, "tool")
        entry = self._text(self._table(tools, "bema"), "entry", LONGEST_ENTRY)
        if "\0" in entry:  # it becomes an argument of a process
            raise self._wrong("entry", "must not hold NUL")
        settings, env = read_function(self._table(tools, "bema"), self._wrong)
        uv = self._table(tools, "uv")
        return ScriptMetadata(
            dependencies=tuple(dependencies),
            requires_python=requires,
            entry=entry,
            entry_line=self._line_of("entry") if entry else 0,
            options=json.dumps(uv, sort_keys=True, default=str) if uv else "",
            settings=settings,
            env=env,
        )

    def _parse(self) -> dict[str, Any]:
        try:
            return parse("\n".join(self._toml))
        except TomlError as error:
            raise self._malformed(self._before + error.line, str(error)) from error

    def _table(self, parent: dict[str, Any], name: str) -> dict[str, Any]:
        value = parent.get(name, {})
        if not isinstance(value, dict):
            raise self._wrong(name, "must be a table")
        return value

    def _text(self, parent: dict[str, Any], name: str, most: int) -> str:
        value = parent.get(name, "")
        if not isinstance(value, str):
            raise self._wrong(name, "must be a string")
        self._check_length(name, value, most)
        return value

    def _check_length(self, key: str, value: str, most: int) -> None:
        if len(value) > most:
            raise self._wrong(key, f"has a text of {len(value)} characters; the limit is {most}")

    def _wrong(self, key: str, problem: str) -> Invalid:
        return self._malformed(self._line_of(key), f"{key} {problem}")

    def _malformed(self, line: int, problem: str) -> Invalid:
        return Invalid(
            f"line {line}: the script's metadata block is malformed: {problem}", code="pep723_malformed", line=line
        )

    def _line_of(self, key: str) -> int:
        """The line of the script where `key` is set; the opening line where that cannot be told."""
        # what stands before the key may be spaces without end: it is gone through once
        pattern = re.compile(rf"""\s*+\[?(?:[\w."' -]+\.)?["']?{re.escape(key)}["']?\s*+[].=]""")
        return next((self._before + n for n, line in enumerate(self._toml, 1) if pattern.match(line)), self._before)
