"""Metadata: the files of one installed distribution, and the identity that they give it.

Law: a distribution is who its METADATA (of an egg: its PKG-INFO) says, once and readably. Whoever is named by nothing, by
two names or by something that is no name is nobody: nobody is trusted, and nobody hides anybody. What is allowed, denied,
locked, selected and shadowed goes by this one identity. Nothing is imported here.
"""

from __future__ import annotations

import re
import zipimport
from collections.abc import Callable
from pathlib import Path

from bema.parts.entries import canonical

# the names that an index takes (packaging specification, "Names and normalization")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z"
# names of headers are printable and have no space (RFC 5322, 3.6.8); not one is folded
_HEADERS = rb"(?:[!-9;-~]+:[^\r\n\x0b\x0c\x1c-\x1f]*\n)+"
_IDENTIFYING = rb"(?im)^(name|version):(.*)$"
# the order in which importlib.metadata looks; the last is an egg-info that is a file and no folder
_FILES = ("METADATA", "PKG-INFO", "")
_HEAD = 8192


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


def _head(path: str, file: str) -> bytes:
    """The file as far as its headers go, and a little more: a description may be a hundred times as long."""
    with open(f"{path}/{file}" if file else path, "rb", buffering=0) as opened:  # noqa: PTH123 - on the way of every start
        content = opened.read(_HEAD)
        if len(content) == _HEAD and b"\n\n" not in content and b"\r\n\r\n" not in content:
            content += opened.readall()
        return content


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
            fields = _plain(content) or fields_of(content)
            name = _only(fields.get("name", []), canonical)
            return (canonical(name), _only(fields.get("version", []), str)) if re.match(_NAME, name) else ("", "")
    return "", ""


def _plain(content: bytes) -> dict[str, list[str]] | None:
    """The fields that identify, where every header is one line of ASCII, as tools write them; None where it is read by hand."""
    # one look at the whole head: line by line takes four times as long, and every start reads each plugin's
    head = content.partition(b"\n\n")[0] + b"\n"
    if not head.isascii() or re.fullmatch(_HEADERS, head) is None:
        return None
    fields: dict[str, list[str]] = {"name": [], "version": []}
    for field, value in re.findall(_IDENTIFYING, head):
        fields[field.lower().decode()].append(value.strip().decode())
    return fields


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
