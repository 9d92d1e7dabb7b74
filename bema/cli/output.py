"""What the commands print. Law: stdout carries data only, as text or as JSON; everything else goes to stderr.

Colour and a moving progress line are for terminals; a pipe gets plain lines, and `NO_COLOR` gets no colour anywhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TextIO, TypeVar

import click
import msgspec

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """`--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print data as JSON.")(command)


def print_json(value: Any) -> None:
    """One JSON document on stdout. Structs, dates, paths and enums are taken as they are."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))


def print_json_line(value: Any) -> None:
    """One line of a JSON stream (NDJSON) on stdout, flushed."""
    click.echo(msgspec.json.encode(value, enc_hook=str))
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Data as text, on stdout."""
    click.echo(text, color=coloured(sys.stdout))


def note(text: str) -> None:
    """What is not data: a hint, a warning, a step taken. On stderr."""
    click.echo(text, err=True, color=coloured(sys.stderr))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns on stdout, the heading line in bold on a terminal."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    heading, *lines = (_aligned(row, widths) for row in ([str(h) for h in headings], *cells))
    print_text("\n".join((style(heading, bold=True), *lines)))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def style(text: str, **how: Any) -> str:
    """`click.style`; what prints the text takes the colour away where there is to be none."""
    return click.style(text, **how)


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
