"""What a deployed process may see of its surroundings: a clean environment, a home and a folder for temporary files.

The rest of the isolation, its own session and group, no descriptors but those it was given, no terminal, the death with
its keeper, belongs to the spawn itself (`keeper/processes.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bema.core.errors import Refused

# no proxy, token or path of ours: what a script needs of them is given to it by name
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Home:
    """The folders of one deployment; they outlive its instances."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.tmp = folder / "tmp"

    def prepare(self) -> None:
        """Make them, for their user alone."""
        try:
            for folder in (self.home, self.tmp):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"{self.home.parent} cannot be made: {error.strerror}", code="state_unwritable") from error


def environment(home: Home, given: Mapping[str, str], surroundings: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a deployed process gets: language and time zone of ours, folders of its own, then what was `given`."""
    return {
        "PATH": _PATH,
        **{name: surroundings[name] for name in _KEPT if name in surroundings},
        "PYTHONUNBUFFERED": "1",
        **given,
        # after what was given: nobody's setting leads a script out of its own folders
        "HOME": str(home.home),
        "TMPDIR": str(home.tmp),
    }
