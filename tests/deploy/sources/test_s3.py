"""An object is a source, and so is a prefix; the platform's keys sign for its own server alone."""

import asyncio
import io
import zipfile
from typing import Any

import pytest

from bema.core import settings
from bema.core.errors import BemaError, Invalid
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.addresses import Networks
from bema.deploy.sources.aws_signature import S3Keys, signed
from bema.deploy.sources.fetch import Fetcher
from bema.deploy.sources.s3 import S3Source
from bema.deploy.sources.source import Fetched, SourceFactory
from tests.servers.buckets import Buckets
from tests.servers.web import Web, web
from tests.servers.web import said as answer

LIMITS = DEFAULTS.but(source_bytes=10_000, source_files=10)
KEYS = S3Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


@pytest.mark.parametrize(
    ("target", "signature"),
    [
        ("?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_a_request_is_signed_as_in_the_examples_of_aws(target: str, signature: str):
    headers = signed(f"https://examplebucket.s3.amazonaws.com/{target}", "us-east-1", KEYS, 1369353600)
    assert headers["x-amz-date"] == "20130524T000000Z"
    assert headers["authorization"].endswith(
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={signature}"
    )


def fetched(buckets: Buckets, url: str, *, seen: list[Web] | None = None, **said: Any) -> Fetched:
    async def story() -> Fetched:
        async with web(buckets.answer) as server:
            (seen if seen is not None else []).append(server)
            fetcher = Fetcher(LIMITS, Networks("127.0.0.1/32"))
            return await S3Source(url, fetcher, LIMITS, endpoint=server.url, **said).fetch()

    return asyncio.run(story())


def refused(buckets: Buckets, url: str, **said: Any) -> BemaError:
    with pytest.raises(BemaError) as caught:
        fetched(buckets, url, **said)
    return caught.value


def shop(**how: Any) -> Buckets:
    buckets = Buckets(**how)
    buckets.put("code", "shop/", "")
    buckets.put("code", "shop/main.py", "import lib")
    buckets.put("code", "shop/lib/__init__.py", "x = 1")
    buckets.put("code", "shop/data/a b+é~%.txt", b"\xff")
    buckets.put("code", "other/main.py", "2")
    return buckets


def test_an_object_is_a_script_and_its_version_is_told():
    found = fetched(shop(), "s3://code/shop/main.py")
    assert found.bundle == Bundle.of_script(b"import lib")
    assert (found.origin.where, found.origin.revision) == ("s3://code/shop/main.py", "3HL4kqtJ")


def test_an_object_may_be_an_archive():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("shop/main.py", "1")
    buckets = Buckets()
    buckets.put("code", "shop.zip", packed.getvalue())
    assert fetched(buckets, "s3://code/shop.zip").bundle == Bundle({"main.py": b"1"})


@pytest.mark.parametrize(("secret", "keys"), [("", None), (KEYS.secret, KEYS)])
def test_a_prefix_is_a_tree_however_many_pages_list_it(secret: str, keys: S3Keys | None):
    found = fetched(shop(secret=secret), "s3://code/shop/", keys=keys)
    files = {"main.py": b"import lib", "lib/__init__.py": b"x = 1", "data/a b+é~%.txt": b"\xff"}
    assert found.bundle == Bundle(files)


def test_what_is_private_wants_keys_that_fit():
    buckets = shop(secret=KEYS.secret, region="eu-west-1", token="lent")
    right = S3Keys(KEYS.id, KEYS.secret, "lent")
    assert fetched(buckets, "s3://code/shop/main.py", keys=right, region="eu-west-1").bundle.script == b"import lib"
    for keys, region in (
        (None, "eu-west-1"),
        (right, "us-east-1"),
        (KEYS, "eu-west-1"),
        (S3Keys("a", "b"), "eu-west-1"),
    ):
        assert refused(buckets, "s3://code/shop/main.py", keys=keys, region=region).code == "source_denied"


@pytest.mark.parametrize("url", ["s3://code/nope.py", "s3://nope/main.py", "s3://code/nope/", "s3://nope/"])
def test_what_is_not_there_is_not_found(url: str):
    assert refused(shop(), url).code == "source_not_found"


def test_an_object_that_changes_meanwhile_is_refused():
    buckets = shop()
    buckets.forwards["shop/main.py"] = b"import evil"
    error = refused(buckets, "s3://code/shop/")
    assert (error.code, "shop/main.py" in error.message) == ("source_changed", True)


@pytest.mark.parametrize("objects", [{"a.py": 6000, "main.py": 6000}, {f"{n}.py": 1 for n in range(11)}])
def test_a_prefix_over_the_limit_is_refused_before_it_is_fetched(objects: dict[str, int]):
    buckets = Buckets(page=100)
    for key, size in objects.items():
        buckets.put("code", f"shop/{key}", b"#" * size)
    seen: list[Web] = []
    assert refused(buckets, "s3://code/shop/", seen=seen).code == "source_too_large"
    assert len(seen[0].requests) == 1


def test_a_key_that_leaves_its_folder_is_refused():
    buckets = Buckets()
    buckets.put("code", "shop/main.py", "")
    buckets.put("code", "shop/../up.py", "")
    assert refused(buckets, "s3://code/shop/").code == "archive_refused"


LISTED = "<ListBucketResult><Contents><Key>{}</Key><Size>1</Size></Contents></ListBucketResult>"


@pytest.mark.parametrize(
    "body",
    [
        "no xml",
        "<Error/>",
        LISTED.format("elsewhere/a.py"),
        '<!DOCTYPE x [<!ENTITY a "b">]>' + LISTED.format("shop/&a;"),
        LISTED.format("shop/a.py").replace("1", "large"),
    ],
)
def test_a_list_that_is_none_is_refused(body: str):
    async def story() -> None:
        async with web(lambda seen: answer(body)) as server:
            source = S3Source("s3://code/shop/", Fetcher(LIMITS, Networks("127.0.0.1/32")), LIMITS, endpoint=server.url)
            with pytest.raises(BemaError) as caught:
                await source.fetch()
            assert caught.value.code == "source_unreachable"

    asyncio.run(story())


@pytest.mark.parametrize(
    "said",
    [
        {"url": "s3://code"},
        {"url": "s3://CODE/a.py"},
        {"url": "s3://co_de/a.py"},
        {"url": "https://code.test/a.py"},
        {"url": "s3://code/a.py", "endpoint": "file:///etc"},
        {"url": "s3://code/a.py", "region": "evil.test/"},
        {"url": "s3://code/a.py", "secret": "1"},
        {},
    ],
)
def test_what_names_no_object_is_refused_before_anybody_is_asked(said: dict[str, str]):
    with pytest.raises(Invalid):
        SourceFactory.choose("s3").of({"type": "s3", **said}, LIMITS)


def test_the_keys_of_the_platform_sign_for_its_own_server_alone(monkeypatch):
    buckets = shop(secret=KEYS.secret, token="lent")

    async def story() -> None:
        async with web(buckets.answer) as own, web(buckets.answer) as other:
            monkeypatch.setenv("BEMA_SOURCES__NETWORKS", "127.0.0.1/32")
            monkeypatch.setenv("BEMA_SOURCES__S3_ENDPOINT", own.url)
            monkeypatch.setenv("BEMA_SOURCES__S3_KEYS", "MINE_")
            monkeypatch.setenv("MINE_ACCESS_KEY_ID", KEYS.id)
            monkeypatch.setenv("MINE_SECRET_ACCESS_KEY", KEYS.secret)
            monkeypatch.setenv("MINE_SESSION_TOKEN", "lent")
            settings.place(None)
            said = {"url": "s3://code/shop/main.py"}
            kind = SourceFactory.choose("s3")
            assert (await kind.of(said, LIMITS).fetch()).bundle.script == b"import lib"
            with pytest.raises(BemaError):
                await kind.of({**said, "endpoint": other.url}, LIMITS).fetch()
            assert not {"authorization", "x-amz-security-token"} & other.requests[0].headers.keys()

    asyncio.run(story())


def test_aws_has_a_host_for_each_bucket():
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        raise OSError("nobody is asked in a test")

    async def story() -> None:
        for bucket in ("code", "my.code"):
            with pytest.raises(BemaError):
                await S3Source(f"s3://{bucket}/a.py", Fetcher(LIMITS, Networks(), resolve), LIMITS).fetch()

    asyncio.run(story())
    assert asked == ["code.s3.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com"]
