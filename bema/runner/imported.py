"""What a script imports, told to who keeps zygotes: the next start of its environment finds it imported.

Law: names alone. What is told is a hint: whoever imports by it must do without what is not there.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from . import __name__ as package

_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(\w[\w.]*)[ \t]+import[ \t]+\(?([\w, \t]*)|import[ \t]+(\w[\w., \t]*))", re.MULTILINE
)
_LONGEST = 256 * 1024  # bytes; what the other end made room for


def tell(descriptor: int | None, script: Path | None = None) -> None:
    """Write the names, in the order in which they were imported, in place of those before.

    With `script` given, those that stand in its source are added: a program says nothing when it is up.
    """
    if descriptor is None:
        return
    names = [name for name in list(sys.modules) if name != "__main__" and not name.startswith(package)]
    if script is not None:
        names += _standing_in(script.read_bytes())
    text = "\n".join(dict.fromkeys(names)).encode()
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, text[: _LONGEST - 1] + b"\0", 0)


def _standing_in(source: bytes) -> Iterator[str]:
    # not by `ast`: a program that is started would wait for that import, and have it
    for module, names, modules in _IMPORT.findall(source):
        listed = [each.split()[0].decode() for each in (names or modules).split(b",") if each.strip()]
        if module:
            yield module.decode()
            # some are no modules but what a module holds: those cannot be imported, which harms nobody
            yield from (f"{module.decode()}.{name}" for name in listed)
        else:
            yield from listed
