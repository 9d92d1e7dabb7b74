"""Code is fetched from the public internet alone, by one look-up, within bounds; a trap beside counts who comes."""

import asyncio
import gzip
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bema.core.errors import BemaError, Failed, Invalid, Overloaded, TooLarge
from bema.core.limits import DEFAULTS
from bema.deploy.sources.addresses import Networks
from bema.deploy.sources.fetch import Answer, Fetcher, check_status, in_time, place_of, resolved
from tests.servers.web import Answering, Seen, said, web

HERE = Networks("127.0.0.0/8")
LIMITS = DEFAULTS.but(source_bytes=100_000)


class Names:
    """A resolver that gives its answers in turn; the last one stays."""

    def __init__(self, *answers: str) -> None:
        self._answers = answers
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self._answers[min(self.asked, len(self._answers)) - 1].split()


def fetched(answer: Answering | bytes, path: str = "/", **headers: str) -> Answer:
    """What is fetched of a server that answers so."""

    async def story() -> Answer:
        async with web(answer if callable(answer) else lambda seen: answer) as server:
            return await Fetcher(LIMITS, HERE).get(server.url + path, headers)

    return asyncio.run(story())


def test_what_is_public_is_fetched_as_it_is():
    answer = fetched(said("x = 1", etag='"1"'), "/a/b.py?token=1")
    assert (answer.status, answer.body, answer.headers["etag"]) == (200, b"x = 1", '"1"')
    assert answer.place.shown.endswith("/a/b.py")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "0x7f000001", "017700000001", "127.1", "0", "0.0.0.0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        *("[fe80::1]", "169.254.169.254", "[fd00:ec2::254]"),
    ],
)
def test_nobody_connects_to_this_machine_however_it_is_written(host: str):
    async def story() -> int:
        async with web(lambda seen: said("secret")) as trap:
            with pytest.raises(BemaError) as caught:
                await Fetcher(LIMITS, Networks()).get(f"http://{host}:{trap.port}/")
            # a form that this machine's resolver does not know leads nowhere either
            assert caught.value.code in ("source_refused", "source_unreachable")
            return trap.connections

    assert asyncio.run(story()) == 0


def test_a_name_with_one_private_address_is_refused_whole():
    async def story() -> None:
        async with web(lambda seen: said("secret")) as trap:
            names = Names("93.184.216.34 127.0.0.1")
            with pytest.raises(Invalid, match=r"127\.0\.0\.1") as caught:
                await Fetcher(LIMITS, Networks(), names).get(f"http://code.test:{trap.port}/")
            assert (caught.value.code, caught.value.problem.http) == ("source_refused", 422)
            assert trap.connections == 0

    asyncio.run(story())


def test_a_name_that_changes_its_answer_is_connected_to_where_it_was_checked():
    async def story() -> None:
        async with web(lambda seen: said("trap")) as trap, web(lambda seen: said("ok"), "127.0.0.2") as server:
            # who asked again would be told the address of the trap
            names = Names("127.0.0.2", "127.0.0.1")
            fetcher = Fetcher(LIMITS, Networks("127.0.0.2/32"), names)
            found = await fetcher.get(f"http://code.test:{server.port}/")
            assert (found.body, names.asked, trap.connections) == (b"ok", 1, 0)
            assert server.requests[0].headers["host"] == f"code.test:{server.port}"

    asyncio.run(story())


def test_each_redirect_is_looked_up_and_checked_anew():
    async def story() -> None:
        async with web(lambda seen: said("trap")) as trap:
            target = f"http://code.test:{trap.port}/"
            async with web(lambda seen: said(status=302, location=target), "127.0.0.2") as server:
                names = Names("127.0.0.2", "127.0.0.1")
                with pytest.raises(Invalid, match=r"127\.0\.0\.1"):
                    await Fetcher(LIMITS, Networks("127.0.0.2/32"), names).get(f"http://code.test:{server.port}/")
            assert (names.asked, trap.connections) == (2, 0)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("http://169.254.169.254/latest/meta-data", "169.254"),
        ("//[::ffff:169.254.169.254]/", "public internet"),
        ("file:///etc/passwd", "no http"),
        ("gopher://127.0.0.1/", "no http"),
        ("http://[", "no URL"),
    ],
)
def test_a_redirect_does_not_lead_where_a_url_may_not(location: str, word: str):
    with pytest.raises(Invalid, match=word) as caught:
        fetched(said(status=307, location=location))
    assert caught.value.code == "source_refused"


def test_redirects_end():
    def answer(seen: Seen) -> bytes:
        step = int(seen.path[1:])
        return said("there") if step == 5 else said(status=301, location=f"/{step + 1}")

    assert fetched(answer, "/0").body == b"there"
    with pytest.raises(Invalid, match="more than 5 times"):
        fetched(answer, "/-1")


def test_a_credential_stays_with_the_origin_that_it_was_given_for():
    async def story() -> None:
        async with web(lambda seen: said("there")) as other:
            answers = {"/": said(status=302, location="/2"), "/2": said(status=302, location=other.url)}
            async with web(answers) as server:
                url = server.url.replace("//", "//me:pass%20word@")
                found = await Fetcher(LIMITS, HERE).get(url, {"x-key": "1"})
                assert found.body == b"there"
                mine = [seen.headers.get("authorization", "") for seen in server.requests]
                assert mine == ["Basic bWU6cGFzcyB3b3Jk"] * 2
                assert not {"authorization", "x-key"} & other.requests[0].headers.keys()

    asyncio.run(story())


def test_nothing_of_the_environment_has_a_say(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert fetched(said("there")).body == b"there"


@pytest.mark.parametrize(
    "url",
    [
        *("", "main.py", "ftp://code.test/", "file:///etc/passwd", "http:///a", "http://a:b/", "http://[::1"),
        *("http://a:99999/", "http://code.test/a b", "http://code.test/é", "http://code.test/\r\nhost: x"),
        "http://[fe80::1%25eth0]/",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str):
    with pytest.raises(Invalid) as caught:
        place_of(url)
    assert caught.value.code == "source_refused"


def test_what_is_shown_of_a_place_lets_nobody_in():
    place = place_of("https://me:secret@code.test:8443/a.py?X-Amz-Signature=secret#secret")
    assert place.shown == "https://code.test:8443/a.py"
    assert "secret" not in repr(place).replace(place.target, "")


async def endless(seen: Seen) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b"x" * 65536 + b"\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(said(b"x" * 100_001), id="said"),
        pytest.param(endless, id="not said"),
        pytest.param(said(gzip.compress(bytes(50_000_000)), content_encoding="gzip"), id="bomb"),
        pytest.param(said(zlib.compress(bytes(100_001)), content_encoding="deflate"), id="deflate"),
        pytest.param(said(gzip.compress(b"") + bytes(200_000), content_encoding="gzip"), id="nothing comes out"),
    ],
)
def test_a_body_over_the_limit_is_not_taken(answer: bytes):
    with pytest.raises(TooLarge) as caught:
        fetched(answer)
    assert (caught.value.code, caught.value.details["limit"]) == ("source_too_large", 100_000)


def test_what_is_packed_though_nobody_asked_is_unpacked():
    assert fetched(said(gzip.compress(b"x" * 100_000), content_encoding="gzip")).body == b"x" * 100_000


NONSENSE = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-x\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx",
    "no chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "half of what is packed": said(gzip.compress(b"x" * 1000)[:-9], content_encoding="gzip"),
    "nothing packed": said(b"no gzip", content_encoding="gzip"),
    "more than is packed": said(gzip.compress(b"x") + b"more", content_encoding="gzip"),
    "another coding": said(b"x", content_encoding="br"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_server_that_talks_nonsense_is_no_source(what: str):
    with pytest.raises(Failed) as caught:
        fetched(NONSENSE[what])
    assert (caught.value.code, caught.value.problem.http) == ("source_unreachable", 424)


def test_nobody_there_and_no_such_name():
    async def story() -> None:
        async with web({}) as server:
            port = server.port
        fetcher = Fetcher(LIMITS, HERE)
        with pytest.raises(Failed, match="cannot be connected to"):
            await fetcher.get(f"http://127.0.0.1:{port}/")

        async def nowhere(host: str, port: int) -> list[str]:
            raise OSError(-2, "Name or service not known")

        with pytest.raises(Failed, match="has no address"):
            await Fetcher(LIMITS, HERE, nowhere).get("http://code.test/")

    asyncio.run(story())


def test_a_server_that_is_slow_without_end_is_left():
    async def slow(seen: Seen) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    async def story() -> None:
        limits = LIMITS.but(source_time=0.3)
        async with web(slow) as server:
            with pytest.raises(Failed, match=r"longer than 0\.3 s") as caught:
                async with in_time(limits):
                    await Fetcher(limits, HERE).get(server.url)
            assert caught.value.code == "source_unreachable"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "code", "after"),
    [
        (said(status=404), "source_not_found", None),
        (said(status=401), "source_denied", None),
        (said(status=403), "source_denied", None),
        (said(status=403, retry_after="7"), "source_rate_limited", 7),
        (said(status=429, retry_after="7"), "source_rate_limited", 7),
        (said(status=429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), "source_rate_limited", 60),
        (said(status=500), "source_unreachable", None),
        (said(status=206), "source_unreachable", None),
    ],
)
def test_a_status_becomes_the_error_that_it_means(answer: bytes, code: str, after: float | None):
    with pytest.raises(BemaError) as caught:
        check_status(fetched(answer))
    assert (caught.value.code, caught.value.retry_after) == (code, after)
    assert isinstance(caught.value, Overloaded) == (after is not None)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate, with its key, of code.test."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl makes a certificate")
    file = tmp_path / "both.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=code.test", "-addext", "subjectAltName=DNS:code.test"),
            *("-keyout", file, "-out", tmp_path / "c"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_bytes(file.read_bytes() + (tmp_path / "c").read_bytes())
    return file


def test_over_tls_the_name_is_checked_though_the_address_is_connected_to(certificate: Path):
    async def story() -> None:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(certificate)
        trusting = ssl.create_default_context(cafile=str(certificate))
        asked: list[str] = []
        serving.sni_callback = lambda tls, name, context: asked.append(name)
        location = {"/down": said(status=302, location="http://code.test/")}
        async with web(lambda seen: location.get(seen.target, said("there")), tls=serving) as server:
            fetcher = Fetcher(LIMITS, HERE, Names("127.0.0.1"), trusting)
            assert (await fetcher.get(f"https://code.test:{server.port}/")).body == b"there"
            with pytest.raises(Failed, match="other\\.test"):
                await fetcher.get(f"https://other.test:{server.port}/")
            with pytest.raises(Failed, match="certificate"):
                await Fetcher(LIMITS, HERE, Names("127.0.0.1")).get(f"https://code.test:{server.port}/")
            with pytest.raises(Invalid, match="redirected to http"):
                await fetcher.get(f"https://code.test:{server.port}/down")
            assert asked[:2] == ["code.test", "other.test"]

    asyncio.run(story())


def test_names_are_looked_up_by_this_machine():
    assert "127.0.0.1" in asyncio.run(resolved("127.0.0.1", 80))
