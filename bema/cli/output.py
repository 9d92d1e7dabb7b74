"""What the commands print. Laws: stdout carries data only, as text or as JSON; everything else goes to stderr. A terminal
is commanded by nobody but us: what is printed comes from scripts, logs and peers as often as from here.

Colour and a moving progress line are for terminals; a pipe gets plain lines, and `NO_COLOR` gets no colour anywhere.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TextIO, TypeVar

import click
import msgspec

from bema.core.visible import encodable, visible, visible_line

_UNITS = ("kB", "MB", "GB", "TB")
_RAW = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_STYLED: dict[str, str] = {}
"""What this process styled, with its text: no other escape sequence reaches a terminal."""
_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """`--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print data as JSON.")(command)


def print_json(value: Any) -> None:
    """One JSON document on stdout. Structs, dates, paths and enums are taken as they are."""
    _write(_json(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)), sys.stdout)


def print_json_line(value: Any) -> None:
    """One line of a JSON stream (NDJSON) on stdout, flushed."""
    # a reader in a pipe waits for each line, and Python would keep them until a buffer is full
    _write(_json(msgspec.json.encode(value, enc_hook=str)), sys.stdout)
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Data as text, on stdout; in a pipe as it is."""
    _write(_rendered(text, sys.stdout, encodable if not sys.stdout.isatty() else visible), sys.stdout)


def note(text: str) -> None:
    """What is not data: a hint, a warning, a step taken. On stderr."""
    _write(_rendered(text, sys.stderr, visible), sys.stderr)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns on stdout, the heading line in bold on a terminal."""
    cells = [[visible_line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    heading, *lines = (_aligned(row, widths) for row in ([str(h) for h in headings], *cells))
    print_text("\n".join((style(heading, bold=True), *lines)))


def plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def size(count: int) -> str:
    """Bytes as a person reads them."""
    if count < 1000:
        return plural(count, "byte")
    power = min(int(math.log(count, 1000)), len(_UNITS))
    return f"{count / 1000**power:.1f} {_UNITS[power - 1]}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def style(text: str, **how: Any) -> str:
    """`click.style` for words of ours; what prints the text takes the colour away where there is to be none."""
    styled = click.style(visible(text), **how)
    _STYLED[styled] = text
    return styled


def _rendered(text: str, stream: TextIO, shown: Callable[[str], str]) -> str:
    """The text with our own colour or none, and all the rest as `shown` has it."""
    # longest first: one styled word may be how another begins
    known = "|".join(map(re.escape, sorted(_STYLED, key=len, reverse=True)))
    pieces = re.split(f"({known})", text) if known else [text]
    colour = coloured(stream)
    return "".join(
        (piece if colour else _STYLED[piece]) if piece in _STYLED else shown(piece) for piece in pieces if piece
    )


def _json(encoded: bytes) -> str:
    """JSON as text: what JSON leaves raw, and a terminal obeys or a reader takes for the end of a line, is escaped too."""
    return _RAW.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded.decode())


def _write(text: str, stream: TextIO) -> None:
    # not by its own judgement of colour, which would take escapes out of data in a pipe
    click.echo(text, file=stream, color=True)


def coloured(stream: TextIO) -> bool:
    """A terminal that shows colour and whose user did not say no (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Progress:
    """Steps of long work, on stderr: one line that changes on a terminal, one plain line per new step elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._moving = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._last = ""

    def step(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        text = visible_line(text)
        self._stream.write(f"\r\x1b[2K{text}" if self._moving else f"{text}\n")
        self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._moving and self._last:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
