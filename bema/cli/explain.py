"""`bema explain`: the table of errors, read aloud."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from bema.cli import output
from bema.core.errors import NotFound
from bema.core.problems import PROBLEMS


@click.command()
@click.argument("code", required=False)
@output.json_option
def command(code: str | None, as_json: bool) -> None:
    """What an error code means and what to do about it."""
    if code is None:
        _list(as_json)
        return
    if code not in PROBLEMS:
        raise NotFound(f"there is no error code {code!r}", fix="`bema explain` lists them all.")
    row = PROBLEMS[code]
    if as_json:
        output.print_json(_row(code))
        return
    output.print_text(
        f"{code}\n  {row.says}\n  fix: {row.fix}\n  HTTP status {row.http}, gRPC status {row.grpc}, exit code {row.exit}"
    )


def _list(as_json: bool) -> None:
    if as_json:
        output.print_json([_row(code) for code in PROBLEMS])
    else:
        output.print_table(
            ("CODE", "HTTP", "EXIT", "MEANING"),
            [(code, row.http, row.exit, row.says) for code, row in PROBLEMS.items()],
        )


def _row(code: str) -> dict[str, Any]:
    return {"code": code, **msgspec.structs.asdict(PROBLEMS[code])}
