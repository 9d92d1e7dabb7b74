"""An archive holds plain files, or is refused with the entry that is none: by content, and by what comes out of it."""

import asyncio
import base64
import gzip
import hashlib
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import example, given, strategies

from bema.core.errors import BemaError, Invalid, TooLarge
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.addresses import Networks
from bema.deploy.sources.archives import is_archive, unpack, without_folder
from bema.deploy.sources.fetch import Fetcher
from bema.deploy.sources.source import Fetched, SourceFactory
from bema.deploy.sources.url import UrlSource
from tests.servers.web import said, web

LIMITS = DEFAULTS.but(source_bytes=2_000_000, source_files=50)
FILES = {"main.py": b"import shop", "shop/__init__.py": b"x = 1", "data/a.bin": bytes(range(256))}
Maker = Callable[[Mapping[str, bytes]], bytes]


def zipped(files: Mapping[str, bytes], mode: int = 0o644, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path)
            # as it is: the module would mend some of what a stranger does not
            entry.filename, entry.external_attr = path, mode << 16
            entry.compress_type = method
            archive.writestr(entry, content)
    return packed.getvalue()


def taped(files: Mapping[str, bytes], mode: str = "w:gz", **differing: Any) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            for name, value in differing.items():
                setattr(entry, name, value)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def tar(files: Mapping[str, bytes]) -> bytes:
    return taped(files, "w")


KINDS: dict[str, Maker] = {"zip": zipped, "tar.gz": taped, "tar": tar}


def refused(content: bytes) -> BemaError:
    with pytest.raises(BemaError) as caught:
        unpack(content, LIMITS)
    assert caught.value.problem.http in (413, 422)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_plain_files_come_out_as_they_went_in(kind: str):
    content = KINDS[kind](FILES)
    assert is_archive(content)
    assert unpack(content, LIMITS) == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_around_all_of_them_is_left_out(kind: str):
    content = KINDS[kind]({f"shop-1a2b/{path}": found for path, found in FILES.items()})
    assert without_folder(unpack(content, LIMITS)) == FILES
    assert without_folder(FILES) == FILES
    assert source({"data": base64.b64encode(content).decode()}).bundle == Bundle(FILES)


def test_code_is_no_archive():
    assert not is_archive(b"import shop\n" * 100)
    assert not is_archive(b"")


PATHS = ["/etc/passwd", "../up.py", "a/../../b.py", "a\\..\\b.py", "C:\\a.py", "a/./b", "a//b", "x" * 300, "a\nb"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_that_leaves_its_folder_is_refused_by_name(kind: str, path: str):
    error = refused(KINDS[kind]({"main.py": b"", path: b"x"}))
    assert error.code == "archive_refused"
    assert repr(path[:40])[1:-1] in error.message


def test_a_name_that_ends_early_is_refused():
    content = zipped({"main.py": b"", "shop.pyX../../up": b""}).replace(b"shop.pyX..", b"shop.py\0..")
    assert refused(content).code == "archive_refused"


@given(strategies.text(min_size=1, max_size=12), strategies.sampled_from(sorted(KINDS)))
@example("..", "zip")
@example("a/..", "tar")
def test_whatever_the_name_what_comes_out_can_be_laid_out(path: str, kind: str):
    try:
        found = unpack(KINDS[kind]({path: b"x", "other/main.py": b""}), LIMITS)
    except (Invalid, UnicodeEncodeError):
        return
    for each in found:
        assert Bundle({each: b""}).files == {each: b""}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"?"]
)
def test_a_tar_entry_that_is_no_file_is_refused(kind: bytes):
    error = refused(taped({"main.py": b""}, type=kind, linkname="/etc/passwd"))
    assert error.code == "archive_refused"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_entry_that_is_no_file_is_refused(kind: int):
    error = refused(zipped({"main.py": b"/etc/passwd"}, kind | 0o777))
    assert (error.code, error.details) == ("archive_refused", {"path": "main.py"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(kind: str):
    content = KINDS[kind]({"shop.py": b"1", "shop.pX": b"2"})
    plain = gzip.decompress(content) if kind == "tar.gz" else content
    if kind == "zip":
        twice = plain.replace(b"shop.pX", b"shop.py")
    else:
        # the sum of a head, in octal, is the name's as well
        entry = tarfile.TarInfo("shop.py")
        entry.size = 1
        twice = plain[:1024] + entry.tobuf() + plain[1536:]
    error = refused(gzip.compress(twice) if kind == "tar.gz" else twice)
    assert "twice" in error.message


def test_an_encrypted_entry_is_refused():
    content = bytearray(zipped({"main.py": b"x"}))
    for head, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(head) + at] |= 1
    assert "encrypted" in refused(bytes(content)).message


def test_a_packing_that_is_not_bounded_is_refused():
    assert "not taken" in refused(zipped({"main.py": b"x"}, method=zipfile.ZIP_LZMA)).message


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_what_grows_beyond_reason_is_refused_before_it_is_there(kind: str):
    assert "200 times" in refused(KINDS[kind]({"main.py": b"", "zeros": bytes(1_900_000)})).message
    assert refused(KINDS[kind]({"main.py": b"", "zeros": bytes(30_000_000)})).code == "source_too_large"


def test_a_size_that_a_head_only_says_is_not_believed():
    content = bytearray(zipped({"main.py": b"x" * 3_000_000}, method=zipfile.ZIP_STORED))
    for head, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(head) + at, 10)
    assert refused(bytes(content)).code in ("archive_refused", "source_too_large")


def test_entries_that_lie_upon_each_other_are_refused():
    one = zipped({"a.py": b"x" * 1000}, method=zipfile.ZIP_STORED)
    start, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    directory = b"".join(one[start:end].replace(b"a.py", name) for name in (b"a.py", b"b.py", b"c.py"))
    closing = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, len(directory), start, 0)
    assert refused(one[:start] + directory + closing).code == "archive_refused"


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_entries_are_refused(kind: str):
    error = refused(KINDS[kind]({f"{n}.py": b"" for n in range(51)}))
    assert (type(error), error.code, error.details["limit"]) == (TooLarge, "source_too_large", 50)
    assert refused(KINDS[kind]({f"{n}.py": b"" for n in range(2000)})).code == "source_too_large"


def test_folders_count_as_well():
    assert refused(taped({f"{n}": b"" for n in range(101)}, type=tarfile.DIRTYPE)).code == "source_too_large"


@given(strategies.binary(max_size=300), strategies.sampled_from(sorted(KINDS)), strategies.data())
def test_a_broken_archive_is_refused_and_breaks_nothing(noise: bytes, kind: str, data: strategies.DataObject):
    content = KINDS[kind](FILES)
    at = data.draw(strategies.integers(0, len(content)))
    try:
        found = unpack(content[:at] + noise + content[at + len(noise) :], LIMITS)
    except (Invalid, TooLarge):
        return
    assert all(isinstance(each, bytes) for each in found.values())


# the sources that archives come by


def source(said: dict[str, Any]) -> Fetched:
    return asyncio.run(SourceFactory.choose("zip").of({"type": "zip", **said}, LIMITS).fetch())


def test_an_archive_travels_in_the_request():
    content = zipped(FILES)
    found = source({"data": base64.b64encode(content).decode(), "entry": "shop/__init__.py"})
    assert found.bundle == Bundle(FILES, "shop/__init__.py")
    assert found.origin.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "either"),
        ({"url": "http://a.test", "data": "eA=="}, "either"),
        ({"data": "eA==", "sha256": "0"}, "sha256"),
        ({"data": "?"}, "base64"),
        ({"data": "eA=="}, "neither a zip nor a tar"),
    ],
)
def test_an_archive_that_is_said_wrongly_is_refused(fields: dict[str, Any], word: str):
    with pytest.raises(Invalid, match=word):
        source(fields)


def url(body: bytes, sha256: str = "", entry: str = "", **headers: Any) -> Fetched:
    async def story() -> Fetched:
        async with web(lambda seen: said(body, **headers)) as server:
            fetcher = Fetcher(LIMITS, Networks("127.0.0.1/32"))
            place = f"{server.url.replace('//', '//me:secret@')}/main.py?key=secret"
            return await UrlSource(place, fetcher, LIMITS, sha256=sha256, entry=entry).fetch()

    return asyncio.run(story())


def test_a_script_and_an_archive_are_told_apart_by_content():
    script = url(b"x = 1", etag='"7"')
    assert script.bundle == Bundle.of_script(b"x = 1")
    assert (script.origin.type, script.origin.revision) == ("url", '"7"')
    assert script.origin.where.endswith("/main.py")
    assert "secret" not in repr(script.origin)
    assert url(taped(FILES)).bundle == Bundle(FILES)
    assert url(zipped(FILES), entry="shop/__init__.py").bundle.entry == "shop/__init__.py"


def test_another_content_than_was_asked_for_is_refused():
    digest = hashlib.sha256(b"x = 1").hexdigest()
    assert url(b"x = 1", digest.upper()).origin.sha256 == digest
    with pytest.raises(Invalid, match="not " + digest) as caught:
        url(b"x = 2", digest)
    assert caught.value.code == "source_changed"
    with pytest.raises(Invalid, match="64 digits"):
        url(b"x = 2", "abc")


def test_a_page_about_a_script_is_none():
    with pytest.raises(Invalid, match="name the raw file"):
        url(b"<html>", content_type="text/html; charset=utf-8")


def test_one_file_has_no_entry():
    with pytest.raises(Invalid, match="one file"):
        url(b"x = 1", entry="main.py")
