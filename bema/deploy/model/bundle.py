"""A Bundle: the files of one version, by path, which of them is run, and one digest for all of it.

Law: immutable, and known by what is in it. The same files are the same Bundle, wherever they came from; what is stored is
its encoding, whose SHA-256 is the digest.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from bema.core.errors import Invalid

SCRIPT = "script.py"
"""The file of a Bundle that is a single script."""
MAIN = "main.py"
"""The file of several that is run where nothing says another."""


class _Entered(msgspec.Struct):
    """The encoding of a Bundle that runs another file than the usual one."""

    entry: str
    files: list[tuple[str, bytes]]


class Bundle:
    """Files by path: relative, with `/` between the parts, none of them `..`. `Invalid` for any other path.

    `entry` is the file that is run; left out, it is the script, `main.py`, or the only Python file.
    """

    def __init__(self, files: Mapping[str, bytes], entry: str = "") -> None:
        for path in files:
            _check_path(path)
        # sorted: equal files give equal bytes, whatever order they came in
        self.files: Mapping[str, bytes] = dict(sorted(files.items()))
        if entry and entry not in files:
            raise Invalid(f"the source has no {entry}", code="entry_file_missing")
        # the usual one is not said: it is the same Bundle, whoever named it
        self._entry = "" if entry == _usual(self.files) else entry

    @classmethod
    def of_script(cls, code: bytes) -> Bundle:
        return cls({SCRIPT: code})

    @classmethod
    def decode(cls, content: bytes) -> Bundle:
        """`Invalid` for what is not the encoding of a Bundle."""
        try:
            found = msgspec.msgpack.decode(content, type=list[tuple[str, bytes]] | _Entered)
        except msgspec.DecodeError as error:
            raise Invalid(f"this is no bundle: {error}") from error
        return cls(dict(found.files), found.entry) if isinstance(found, _Entered) else cls(dict(found))

    @property
    def entry(self) -> str:
        """The path of the file that is run; `Invalid` (entry_file_missing) where nothing says which."""
        if entry := self._entry or _usual(self.files):
            return entry
        raise Invalid(f"of the {len(self.files)} files of the source none is {MAIN}", code="entry_file_missing")

    @property
    def script(self) -> bytes:
        """The code of the file that is run."""
        return self.files[self.entry]

    @functools.cached_property
    def encoded(self) -> bytes:
        files = list(self.files.items())
        return msgspec.msgpack.encode(_Entered(self._entry, files) if self._entry else files)

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.encoded).hexdigest()

    def place(self, folder: Path) -> None:
        """Lay the files out in `folder`, all of them or none. A folder that has the file that is run is left as it is."""
        entry = folder / self.entry
        if entry.exists():
            return
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for path, content in self.files.items():
                file = draft / path
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                file.write_bytes(content)
            # without the file that is run it is no whole of ours: somebody took it away
            shutil.rmtree(folder, ignore_errors=True)
            try:
                draft.rename(folder)
            except OSError:
                # another may have been faster, with the same files
                if not entry.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bundle) and other.encoded == self.encoded

    def __hash__(self) -> int:
        return hash(self.digest)


def _usual(files: Mapping[str, bytes]) -> str:
    if usual := next((path for path in (SCRIPT, MAIN) if path in files), ""):
        return usual
    codes = [path for path in files if path.endswith(".py")]
    return codes[0] if len(codes) == 1 else ""


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    # what is laid out in a folder must not leave it
    if not parts or "\0" in path or path != "/".join(parts) or ".." in parts:
        raise Invalid(f"{path!r} cannot be the path of a file in a bundle")
