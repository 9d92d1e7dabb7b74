"""`bema deploy` without a FILE: the functions that bema.toml names, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable

from bema.cli import output
from bema.cli.declared_functions import FunctionEntry, functions
from bema.core import files
from bema.core.errors import BemaError, Unavailable


def deploy_all(deploy: Callable[[FunctionEntry], None]) -> None:
    """Deploy each, and go on behind one that failed; the first failure is raised in the end.

    `Invalid` before anything is deployed where the file does not say what can be; `Unavailable` where no platform answers, which
    would be so of the next one, too.
    """
    wanted = functions(files.folder(os.environ))
    failed: list[BemaError] = []
    for number, entry in enumerate(wanted, 1):
        output.note(f"{entry.name} ({number} of {len(wanted)})")
        try:
            deploy(entry)
        except Unavailable:
            raise
        except BemaError as error:
            failed.append(error)
            # the first is told in the end, with its remedy
            if len(failed) > 1:
                output.note(f"error {error.code}: {error.message}")
    if failed:
        if len(wanted) > 1:
            output.note(f"{len(wanted) - len(failed)} of {len(wanted)} functions are deployed")
        raise failed[0]
