"""Metadata: the files of one installed distribution, and the identity that they give it.

Law: a distribution is who its METADATA (of an egg: its PKG-INFO) says, once and readably. Whoever is named by nothing, by
two names or by something that is no name is nobody: nobody is trusted, and nobody hides anybody. What is allowed, denied,
locked, selected and shadowed goes by this one identity. Nothing is imported here.
"""

from __future__ import annotations

import os
import zipimport
from collections.abc import Callable
from pathlib import Path

from bema.parts.entries import canonical

_IDENTIFYING = (b"\nname:", b"\nversion:")
# the order in which importlib.metadata looks; the last is an egg-info that is a file and no folder
_FILES = ("METADATA", "PKG-INFO", "")
_READ = 8192


def read(path: str, file: str) -> bytes:
    """A file of a metadata folder, which may lie in a zip file; `OSError` where there is none."""
    place = Path(path, file)
    try:
        return place.read_bytes()
    except NotADirectoryError:
        # zipimport, as every start has it: zipfile would cost more than the file that is read
        archive = next((p for p in place.parents if p.is_file()), None)
        if archive is None or archive.suffix == ".egg-info":
            raise
        try:
            return zipimport.zipimporter(str(archive)).get_data(str(place))
        except zipimport.ZipImportError as error:
            raise FileNotFoundError(str(error)) from error


def content_of(path: str, upto: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """A file, read no further than where `upto` says of what was read that it is enough; `OSError` where there is none."""
    # by descriptor: a scan tries one file per distribution, and an object of `open` takes longer than the rest of it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = more = os.read(descriptor, _READ)
        while more and not upto(content):
            content += (more := os.read(descriptor, _READ))
        return content
    finally:
        os.close(descriptor)


def _head(path: str, file: str) -> bytes:
    """The file as far as its headers go, and a little more: a description may be a hundred times as long."""
    return content_of(f"{path}/{file}" if file else path, lambda read: b"\n\n" in read or b"\r\n\r\n" in read)


def fields_of(content: bytes) -> dict[str, list[str]]:
    """The header fields, names in lower case, folded lines joined; bytes that are not UTF-8 stand as U+FFFD."""
    fields: dict[str, list[str]] = {}
    values: list[str] = []
    # read by hand: importlib.metadata, with the `email` that it parses by, takes 22 ms and more to import
    # bytes, because a str is also split at characters that end no line of a header
    for raw in content.splitlines():
        line = raw.decode("utf-8", "replace")
        if line[:1] in (" ", "\t") and values:
            values[-1] = f"{values[-1]} {line.strip()}".strip()
            continue
        name, colon, value = line.partition(":")
        # an empty line ends the headers, and so does, for the parser of the standard library, one that is none
        if not colon or not name.isascii() or not name.isprintable() or " " in name:
            break
        values = fields.setdefault(name.lower(), [])
        values.append(value.strip())
    return fields


def headers(path: str) -> dict[str, list[str]]:
    """The header fields of a distribution's metadata; empty where there is none."""
    for file in _FILES:
        try:
            if content := read(path, file):
                return fields_of(content)
        except OSError:
            continue
    return {}


def identity(path: str) -> tuple[str, str]:
    """The canonical name and the version of a distribution; an empty name where nobody can be told."""
    return identified(lambda file: _head(path, file))


def identified(read_one: Callable[[str], bytes]) -> tuple[str, str]:
    """As `identity`, for metadata that `read_one` reads by the name of the file."""
    for file in _FILES:
        try:
            content = read_one(file)
        except OSError:
            continue
        if content:
            fields = fields_of(_beginning(content))
            name = _only(fields.get("name", []), canonical)
            return (canonical(name), _only(fields.get("version", []), str)) if _is_name(name) else ("", "")
    return "", ""


def _beginning(content: bytes) -> bytes:
    """The content as far as its one Name and its one Version; all of it where either is not there just once."""
    # they stand in the first lines, and every start reads each plugin's: to read on takes four times as long
    head = b"\n" + content.partition(b"\n\n")[0] + b"\n"
    lower = head.lower()
    if b"\r" in head or any(lower.count(field) != 1 for field in _IDENTIFYING):
        return content
    end = head.find(b"\n", max(map(lower.index, _IDENTIFYING)) + 1)
    # a line that goes on in the next one is read with it
    return content if head[end + 1 : end + 2] in (b" ", b"\t") else head[1:end]


def _is_name(text: str) -> bool:
    """Whether an index takes the name (packaging specification, "Names and normalization")."""
    inner = text.replace("-", "").replace("_", "").replace(".", "")
    return inner.isascii() and inner.isalnum() and text[0].isalnum() and text[-1].isalnum()


def _only(values: list[str], same: Callable[[str], str]) -> str:
    # of two answers one would pass the allow list and the other the deny list
    return values[0] if len({same(value) for value in values}) == 1 else ""


def readings(stem: str) -> list[str]:
    """Every canonical name that the name of a metadata folder can mean, without its ending."""
    parts = stem.split("-")
    return [canonical("-".join(parts[:count])) for count in range(1, len(parts) + 1)]


def has_one_reading(stem: str, kind: str) -> bool:
    """Whether a folder's name is `name-version`, or for an egg-info `name`, whatever way it is read."""
    return stem.count("-") == (1 if kind == "dist-info" else 0)
