"""What a script says of itself in its `# /// script` block (PEP 723, inline script metadata).

Laws: no block means no dependencies; a block that is not exactly one whole block of valid TOML is refused before anything
runs, and the three ways to get it wrong are three errors, each with its line. Pure: text in, `Metadata` out.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import msgspec

from bema.core.errors import Invalid
from bema.core.versions import check_specifiers

OPENING = "# /// script"
CLOSING = "# ///"
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class ScriptMetadata(msgspec.Struct, frozen=True):
    """What of the block concerns us; uv reads the block itself when it locks."""

    dependencies: tuple[str, ...] = ()
    requires_python: str = ""
    entry: str = ""
    entry_line: int = 0


def read_metadata(code: str) -> ScriptMetadata:
    """The metadata of a script, or `Invalid` (pep723_malformed, pep723_unclosed, pep723_duplicated) with its `line`."""
    lines = code.replace("\r\n", "\n").split("\n")
    openings = [number for number, line in enumerate(lines) if line == OPENING]
    if not openings:
        return ScriptMetadata()
    first, *others = openings
    end = _closing(lines, first)
    # the reference takes the last closing line of the run, which may belong to a block that opened meanwhile
    if others and others[0] < end and CLOSING not in lines[first : others[0]]:
        end = first
    if end == first:
        raise Invalid(
            f"line {first + 1}: the block opened by {OPENING!r} has no closing {CLOSING!r}",
            code="pep723_unclosed",
            line=first + 1,
        )
    if others:
        raise Invalid(
            f"line {others[0] + 1}: a second {OPENING!r} block; the first is on line {first + 1}",
            code="pep723_duplicated",
            line=others[0] + 1,
        )
    return _Block(lines[first + 1 : end], first + 1).metadata()


def _closing(lines: list[str], opening: int) -> int:
    """The last closing line of the run of comment lines after `opening`, as the reference regular expression finds it;
    `opening` itself when there is none."""
    end = opening
    for number in range(opening + 1, len(lines)):
        if lines[number] == CLOSING:
            end = number
        elif lines[number] != "#" and not lines[number].startswith("# "):
            break
    return end


class _Block:
    """The lines between opening and closing; `before` lines of the script precede them."""

    def __init__(self, lines: list[str], before: int) -> None:
        self._toml = [line[2:] for line in lines]
        self._before = before

    def metadata(self) -> ScriptMetadata:
        table = self._parse()
        dependencies = table.get("dependencies", [])
        if not isinstance(dependencies, list) or not all(isinstance(d, str) for d in dependencies):
            raise self._wrong("dependencies", "must be a list of strings")
        requires = table.get("requires-python", "")
        if not isinstance(requires, str):
            raise self._wrong("requires-python", "must be a string")
        if problem := check_specifiers(requires):
            raise self._wrong("requires-python", problem)
        entry = self._table(self._table(table, "tool"), "bema").get("entry", "")
        if not isinstance(entry, str):
            raise self._wrong("entry", "must be a string")
        return ScriptMetadata(tuple(dependencies), requires, entry, self._line_of("entry") if entry else 0)

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads("\n".join(self._toml))
        except tomllib.TOMLDecodeError as error:
            found = _AT_LINE.search(str(error))
            line = self._before + (int(found[1]) if found and found[1] else len(self._toml))
            raise self._malformed(line, _AT_LINE.sub("", str(error))) from error
        except RecursionError as error:
            raise self._malformed(self._before, "the TOML is nested too deeply") from error

    def _table(self, parent: dict[str, Any], name: str) -> dict[str, Any]:
        value = parent.get(name, {})
        if not isinstance(value, dict):
            raise self._wrong(name, "must be a table")
        return value

    def _wrong(self, key: str, problem: str) -> Invalid:
        return self._malformed(self._line_of(key), f"{key} {problem}")

    def _malformed(self, line: int, problem: str) -> Invalid:
        return Invalid(
            f"line {line}: the script's metadata block is malformed: {problem}", code="pep723_malformed", line=line
        )

    def _line_of(self, key: str) -> int:
        """The line of the script where `key` is set; the opening line where that cannot be told."""
        pattern = re.compile(rf"""\s*\[?(?:[\w."' -]+\.)?["']?{re.escape(key)}["']?\s*[].=]""")
        return next((self._before + n for n, line in enumerate(self._toml, 1) if pattern.match(line)), self._before)
