"""A Bundle: the files of one version, by path, and one digest for all of them.

Law: immutable, and known by what is in it. The same files are the same Bundle, wherever they came from; what is stored is
its encoding, whose SHA-256 is the digest.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from bema.core.errors import Invalid

SCRIPT = "script.py"
"""The file of a Bundle that is a single script."""


class Bundle:
    """Files by path: relative, with `/` between the parts, none of them `..`. `Invalid` for any other path."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        for path in files:
            _check_path(path)
        # sorted: equal files give equal bytes, whatever order they came in
        self.files: Mapping[str, bytes] = dict(sorted(files.items()))

    @classmethod
    def of_script(cls, code: bytes) -> Bundle:
        return cls({SCRIPT: code})

    @classmethod
    def decode(cls, content: bytes) -> Bundle:
        """`Invalid` for what is not the encoding of a Bundle."""
        try:
            return cls(dict(msgspec.msgpack.decode(content, type=list[tuple[str, bytes]])))
        except msgspec.DecodeError as error:
            raise Invalid(f"this is no bundle: {error}") from error

    @property
    def script(self) -> bytes:
        """The code of a single script; `Invalid` where there is none."""
        if SCRIPT not in self.files:
            raise Invalid(f"the bundle has no {SCRIPT}")
        return self.files[SCRIPT]

    @functools.cached_property
    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(list(self.files.items()))

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.encoded).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bundle) and other.files == self.files

    def __hash__(self) -> int:
        return hash(self.digest)


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    # what is laid out in a folder must not leave it
    if not parts or "\0" in path or path != "/".join(parts) or ".." in parts:
        raise Invalid(f"{path!r} cannot be the path of a file in a bundle")
