"""The edge of the command line. Law: a failure becomes lines on stderr and an exit code here and nowhere else.

Exit codes: 0 done (a server after a full drain too), 1 the user's fault, 2 ours, 3 not reachable, 4 not ready in time,
130 interrupted. `core/problems.py` gives each error code its exit code.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec

from bema.cli import output
from bema.core.errors import BemaError, Invalid, as_json
from bema.core.paths import state_dir
from bema.core.visible import visible, visible_line

INTERRUPTED = 130
_ONLY_HELP: type[click.ClickException] | tuple[()] = getattr(
    click.exceptions, "NoArgsIsHelpError", ()
)  # from click 8.2 on
TRACEBACK_FILE = "traceback.txt"


def wants_json(argv: Sequence[str]) -> bool:
    """Whether `--json` was given; known without parsing, so that a line that cannot be parsed is answered in JSON too."""
    return "--json" in (argv[: argv.index("--")] if "--" in argv else argv)


def edge(command: Callable[[], object], in_json: bool = False) -> int:
    """Run a command and return its exit code; nothing but `SystemExit` leaves here."""
    try:
        code = command()
        # a reader that has gone is met here, and not when Python ends, which would exit with 120
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BemaError as error:
        return _report(error, in_json)
    except click.ClickException as error:
        if isinstance(error, _ONLY_HELP):
            # a group that is named alone asks what is in it: that is no mistake
            output.print_text(error.format_message())
            return 0
        return _report(_of_click(error), in_json)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # the reader has what it wanted; Python would fail once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:  # noqa: BLE001 - the process edge
        return _report(_unexpected(error), in_json)


def _report(error: BemaError, in_json: bool) -> int:
    if _shows_traceback():
        output.note("".join(traceback.format_exception(error)).rstrip())
    if in_json:
        output.note(msgspec.json.encode(as_json(error), enc_hook=str).decode())
    else:
        output.note(text_of(error))
    return error.problem.exit


def text_of(error: BemaError) -> str:
    """An error as a person reads it: what and where, the fix, where there is more."""
    # a message may be a script's, and have lines of its own: only ours begin at the left
    what, *rest = visible(error.message).splitlines() or [""]
    head = f"{output.style('error', fg='red')} {error.code}: {what}"
    log = error.details.get("log") or ()
    body = [*rest, *(visible_line(str(line)) for line in ([log] if isinstance(log, str) else log))]
    return "\n".join(
        (
            head,
            *(f"  | {line}" for line in body),
            f"  fix: {visible_line(error.fix)}",
            f"  more: bema explain {error.code}",
        )
    )


def _of_click(error: click.ClickException) -> BemaError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    fix = f"`{context.command_path} --help` shows what it takes." if context else None
    found = Invalid(error.format_message(), code="usage", fix=fix)
    found.__cause__ = error
    return found


def _unexpected(error: Exception) -> BemaError:
    """Report a failure of bema itself: keep the traceback in a file, and print its path."""
    text = "".join(traceback.format_exception(error))
    kept = state_dir() / TRACEBACK_FILE
    try:
        _keep(kept, text)
        fix = f"Report it with the traceback in {kept}."
    except OSError:
        if not _shows_traceback():
            output.note(text.rstrip())
        fix = "Report it with the traceback above."
    found = BemaError(f"{type(error).__name__}: {error}", fix=fix)
    found.__cause__ = error
    return found


def _keep(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # a traceback may show values that are nobody else's
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)


def _shows_traceback() -> bool:
    return os.environ.get("BEMA_TRACEBACK", "") not in ("", "0")
