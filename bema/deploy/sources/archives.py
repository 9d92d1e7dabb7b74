"""Archives of strangers, as files by path: zip, tar and tar.gz, told apart by content.

Laws: an archive holds plain files or is refused, each refusal with the entry's name: nothing is skipped that somebody might
miss. What comes out is counted while it comes, not believed from a head. Nothing is written to disk.
"""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final, NoReturn

from bema.core.errors import Invalid
from bema.core.limits import Limits
from bema.deploy.sources.tree import check_counts, check_path

RATIO: Final = 200
"""Bytes that come out for each that is packed; code and text come to ten or twenty."""
_ALWAYS: Final = 1024 * 1024  # bytes that may come out of any
_LONGEST_NAME = 100
_EMPTY_ZIP: Final = b"PK\x05\x06"
_ZIP: Final = (b"PK\x03\x04", _EMPTY_ZIP)
_GZIP: Final = b"\x1f\x8b"
_DIRECTORY_ENTRY: Final = b"PK\x01\x02"
_ENCRYPTED: Final = 0x1
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_JUNK: Final = "__MACOSX/"
_BROKEN: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)


def is_archive(content: bytes) -> bool:
    return content.startswith((*_ZIP, _GZIP)) or content[257:262] == b"ustar"


def unpack(content: bytes, limits: Limits) -> dict[str, bytes]:
    """The files of an archive, by their paths in it.

    Raises:
        Invalid: an entry is no plain file, or the archive is broken or packed beyond reason (archive_refused).
        TooLarge: it has more files, or larger ones together, than a source may have (source_too_large).
    """
    entries = _zipped if content.startswith(_ZIP) else _taped
    files: dict[str, bytes] = {}
    size = 0
    try:
        for path, found in entries(content, limits):
            if path in files:
                _refuse(path, "is there twice")
            files[path] = found
            size += len(found)
            check_counts(len(files), size, limits)
            if size > _ALWAYS + RATIO * len(content):
                _refuse(path, f"makes the archive {RATIO} times as large as it is packed")
    except _BROKEN as error:
        raise Invalid(f"the archive cannot be read: {error}", code="archive_refused") from error
    return files


def _zipped(content: bytes, limits: Limits) -> Iterator[tuple[str, bytes]]:
    # before they become objects: an archive has room for a million entries without a file
    if content.count(_DIRECTORY_ENTRY) > 2 * limits.source_files:
        check_counts(limits.source_files + 1, 0, limits)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if sum(entry.compress_size for entry in entries) > len(content):
            _refuse("the archive", "has entries that overlap")
        left = limits.source_bytes
        for entry in entries:
            path, mode = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
            if path.startswith(_JUNK):
                continue
            check_path(path.removesuffix("/"))
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(path, "is a link or a device")
            if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
                _refuse(path, "is encrypted, or packed in a way that is not taken")
            if not entry.is_dir():
                with archive.open(entry) as file:
                    found = file.read(left + 1)
                left -= len(found)
                check_counts(1, limits.source_bytes - left, limits)
                yield path, found


def _taped(content: bytes, limits: Limits) -> Iterator[tuple[str, bytes]]:
    if content.startswith(_GZIP):
        # each entry has a head, and more of it where its name is long
        most = limits.source_bytes + 4096 * limits.source_files
        with gzip.open(io.BytesIO(content)) as packed:
            plain = packed.read(most + 1)
        if len(plain) > most:
            check_counts(1, len(plain), limits)
    else:
        plain = content
    # of many folders nobody has a file
    entries = 0
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
        for entry in archive:
            entries += 1
            if entries > 2 * limits.source_files:
                check_counts(limits.source_files + 1, 0, limits)
            path = entry.name.removeprefix("./")
            if entry.isdir() and path in (".", ""):
                continue
            check_path(path)
            if entry.issparse() or not (entry.isreg() or entry.isdir()):
                _refuse(path, "is a link or a device")
            if entry.isreg() and (file := archive.extractfile(entry)) is not None:
                found = file.read()
                if len(found) != entry.size:
                    _refuse(path, "is not whole")
                yield path, found


def without_folder(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files without the folder that holds all of them, where there is one: the archives of repositories have."""
    tops = {path.partition("/")[0] for path in files}
    if len(tops) != 1 or not all("/" in path for path in files):
        return files
    return {path.partition("/")[2]: content for path, content in files.items()}


def _refuse(path: str, why: str) -> NoReturn:
    raise Invalid(f"{path[:_LONGEST_NAME]!r} {why}", code="archive_refused", path=path[:_LONGEST_NAME])
