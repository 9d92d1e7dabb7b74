"""A Bundle is known by what is in it."""

import pytest
from hypothesis import given, strategies

from bema.core.errors import Invalid
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.source import SourceFactory

NAMES = strategies.text("abé.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = strategies.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(strategies.dictionaries(PATHS, strategies.binary(max_size=4)))
def test_what_is_stored_of_it_comes_back_equal_under_the_same_digest(files: dict[str, bytes]):
    bundle = Bundle(files)
    assert Bundle.decode(bundle.encoded) == bundle
    assert Bundle(dict(reversed(files.items()))).digest == bundle.digest == Bundle.decode(bundle.encoded).digest


@given(
    strategies.dictionaries(PATHS, strategies.binary(max_size=2)),
    strategies.dictionaries(PATHS, strategies.binary(max_size=2)),
)
def test_other_files_are_another_bundle(one: dict[str, bytes], other: dict[str, bytes]):
    assert (Bundle(one).digest == Bundle(other).digest) == (one == other)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "./a", "a/", "a\0b"])
def test_a_path_that_leaves_its_folder_or_has_two_spellings_is_refused(path: str):
    with pytest.raises(Invalid, match="cannot be the path"):
        Bundle({path: b""})


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x91\x01", b"print('hello')"])
def test_what_is_no_bundle_is_refused(content: bytes):
    with pytest.raises(Invalid, match="no bundle"):
        Bundle.decode(content)


def test_a_bundle_without_a_script_says_so():
    with pytest.raises(Invalid, match=r"no script\.py"):
        _ = Bundle({"main.py": b""}).script


def test_a_source_that_is_described_wrongly_is_refused():
    with pytest.raises(Invalid, match="`code`"):
        SourceFactory.choose("inline").of({"url": "https://example.org"}, DEFAULTS)
