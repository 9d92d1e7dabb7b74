"""Fetcher: one GET of a URL that a stranger chose, bounded in where it goes, what it takes and how long.

Laws: a name is resolved once, all its addresses are checked, and the connection goes to one that was checked; each redirect is
a new URL, checked likewise, and never from https to http. A credential goes to the origin that it was given for, and to no
other. Nothing of the environment, no proxy, cookie or `.netrc`, has a say.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import msgspec

from bema.core.deferred import deferred
from bema.core.errors import Failed, Invalid, Overloaded, TooLarge
from bema.core.limits import Limits
from bema.core.redaction import hides
from bema.core.settings import current
from bema.core.version import VERSION
from bema.deploy.sources.addresses import Networks

if TYPE_CHECKING:
    import h11
else:  # of the extra `platform`: that there are such sources is known without it
    h11 = deferred("h11")

Resolve = Callable[[str, int], Awaitable[list[str]]]

REDIRECTS: Final = 5
_REDIRECT: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
_PIECE: Final = 64 * 1024
_CONNECT: Final = 10.0  # seconds for each address: a server that is not there must not take all the time


class WebPlace(msgspec.Struct, frozen=True):
    """A URL taken apart: what is connected to, what is asked for, and the header that its user and password make."""

    scheme: str
    host: str
    port: int
    target: str
    credential: str = ""
    __repr__ = hides("credential")

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL without user, password and query, any of which may let somebody in."""
        return self.origin + self.target.partition("?")[0]


class Answer(msgspec.Struct, frozen=True):
    """What came: headers by their names in lower case, and the place that it came from in the end."""

    status: int
    headers: dict[str, str]
    body: bytes
    place: WebPlace

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


async def resolved(host: str, port: int) -> list[str]:
    """The addresses of a name, as this machine knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetcher:
    """Fetches what is public, or lies in `networks`. A body has at most `source_bytes` bytes, after what packs it was taken off."""

    def __init__(
        self,
        limits: Limits,
        networks: Networks | None = None,
        resolve: Resolve = resolved,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._networks = Networks(current().text("sources.networks")) if networks is None else networks
        self._resolve = resolve
        self._tls = tls

    async def get(self, url: str, headers: Mapping[str, str] | None = None, most: int | None = None) -> Answer:
        """The answer, whatever its status; redirects are followed. `most` is the bytes of it that are taken.

        Raises:
            Invalid: the URL or a redirect leads where code is not fetched from (source_refused).
            Failed: no server is there, or it does not speak HTTP (source_unreachable).
            TooLarge: the body is larger than it may be (source_too_large).
        """
        place, own = place_of(url), dict(headers or {})
        first = place
        for _ in range(REDIRECTS + 1):
            # only where it was meant for: a redirect is chosen by a server
            sent = own if place.origin == first.origin else {}
            if first.credential and place.origin == first.origin:
                sent = {"authorization": first.credential, **sent}
            answer = await self._get(place, sent, self._limits.source_bytes if most is None else most)
            if answer.status not in _REDIRECT or "location" not in answer.headers:
                return answer
            place = self._next(place, answer.headers["location"])
        raise Invalid(f"{first.shown} is redirected more than {REDIRECTS} times", code="source_refused")

    def _next(self, place: WebPlace, location: str) -> WebPlace:
        try:
            following = place_of(urljoin(f"{place.origin}{place.target}", location))
        except ValueError as error:
            raise Invalid(f"{place.shown} is redirected to no URL: {error}", code="source_refused") from error
        if (place.scheme, following.scheme) == ("https", "http"):
            raise Invalid(f"{place.shown} is redirected to http, which anybody may change", code="source_refused")
        return following

    async def checked(self, place: WebPlace) -> list[str]:
        """The addresses of a place. All of them may be connected to: `Invalid` (source_refused) where one may not."""
        try:
            addresses = await self._resolve(place.host, place.port)
        except (OSError, UnicodeError) as error:
            raise Failed(f"{place.host} has no address: {error}", code="source_unreachable") from error
        for address in addresses:
            if not self._networks.allow(address):
                message = f"{place.host} is {address}, which is not of the public internet"
                raise Invalid(message, code="source_refused", host=place.host, address=address)
        return addresses

    async def _get(self, place: WebPlace, headers: Mapping[str, str], most: int) -> Answer:
        async with self._connected(place) as (reader, writer):
            try:
                exchange = _Exchange(reader, writer, place, most)
                return await exchange.answer(headers)
            except (h11.RemoteProtocolError, OSError, EOFError, zlib.error) as error:
                raise Failed(f"{place.shown} does not answer in HTTP: {error}", code="source_unreachable") from error

    @contextlib.asynccontextmanager
    async def _connected(self, place: WebPlace) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        last: Exception | None = None
        for address in await self.checked(place):
            try:
                async with asyncio.timeout(_CONNECT):
                    streams = await self._open(place, address)
            except (OSError, TimeoutError, ssl.SSLError) as error:
                last = error
                continue
            try:
                yield streams
            finally:
                # no word of farewell: a peer may not take it
                streams[1].transport.abort()
            return
        why = "it takes too long" if isinstance(last, TimeoutError) else last
        raise Failed(f"{place.origin} cannot be connected to: {why}", code="source_unreachable") from last

    async def _open(self, place: WebPlace, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if place.scheme == "http":
            return await asyncio.open_connection(address, place.port)
        tls = self._tls or ssl.create_default_context()
        return await asyncio.open_connection(address, place.port, ssl=tls, server_hostname=place.host)


class _Exchange:
    """One request and its answer over a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: WebPlace, most: int) -> None:
        self._reader = reader
        self._writer = writer
        self._place = place
        self._most = most
        self._http = h11.Connection(h11.CLIENT)

    async def answer(self, headers: Mapping[str, str]) -> Answer:
        sent = {
            "host": self._place.netloc,
            "user-agent": f"bema/{VERSION}",
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
            **headers,
        }
        request = h11.Request(method="GET", target=self._place.target, headers=list(sent.items()))
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()
        head = await self._event()
        while isinstance(head, h11.InformationalResponse):
            head = await self._event()
        if not isinstance(head, h11.Response):
            raise EOFError("the connection was closed")
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        redirected = head.status_code in _REDIRECT and "location" in given
        body = b"" if redirected else await self._body(given)
        return Answer(head.status_code, given, body, self._place)

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("content-length", "").isdecimal() and int(headers["content-length"]) > self._most:
            raise self._too_large()
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            message = f"{self._place.shown} answers in the coding {coding!r}, which was not asked for"
            raise Failed(message, code="source_unreachable")
        unpacked = _Plain() if coding in ("identity", "") else _Unpacked()
        body, came = bytearray(), 0
        while isinstance(event := await self._event(), h11.Data):
            came += len(event.data)
            body += unpacked.take(bytes(event.data), self._most + 1 - len(body))
            # what came, too: it may be packed so that nothing ever comes out
            if max(came, len(body)) > self._most:
                raise self._too_large()
        if not isinstance(event, h11.EndOfMessage):
            raise EOFError("the connection was closed")
        unpacked.check()
        return bytes(body)

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_PIECE))
        return event

    def _too_large(self) -> TooLarge:
        message = f"{self._place.shown} is larger than {self._most} bytes (source_bytes)"
        return TooLarge(message, code="source_too_large", limit=self._most)


class _Plain:
    def take(self, data: bytes, most: int) -> bytes:
        return data

    def check(self) -> None:
        pass


class _Unpacked:
    """A body that is packed though nobody asked for it: no more of it comes out at once than is still taken."""

    def __init__(self) -> None:
        # gzip and zlib, known by their heads
        self._packer = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def take(self, data: bytes, most: int) -> bytes:
        return self._packer.decompress(data, most)

    def check(self) -> None:
        if not self._packer.eof or self._packer.unused_data:
            raise EOFError("what is packed has another end than the body")


def place_of(url: str) -> WebPlace:
    """A URL taken apart; `Invalid` (source_refused) for one that is no plain http or https URL."""
    parts = _split(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise Invalid(f"{_bare(parts) or 'an empty text'} is no http or https URL", code="source_refused")
    try:
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, UnicodeError) as error:
        raise Invalid(f"{_bare(parts)} names no host: {error}", code="source_refused") from error
    # who connects may read such a number as an address, and who looks names up may not
    if re.fullmatch(r"0x[0-9a-f]*|\d+", host.rstrip(".").rpartition(".")[2]) and not _is_address(host):
        raise Invalid(f"{_bare(parts)} has an address in another form than 1.2.3.4", code="source_refused")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not (target.isascii() and target.isprintable() and " " not in target and "%" not in host):
        raise Invalid(f"{_bare(parts)} is no URL: some of it must be written as %XX", code="source_refused")
    return WebPlace(parts.scheme, host, port, target, _basic(parts))


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise Invalid(f"this is no URL: {error}", code="source_refused") from error


def _bare(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme or host else parts.path


def _basic(parts: SplitResult) -> str:
    if parts.username is None and parts.password is None:
        return ""
    said = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(said.encode("utf-8", "replace")).decode()


@contextlib.asynccontextmanager
async def in_time(limits: Limits) -> AsyncIterator[None]:
    """Bounds all that a source does; `Failed` (source_unreachable) when that takes longer."""
    try:
        async with asyncio.timeout(limits.source_time):
            yield
    except TimeoutError as error:
        message = f"the source took longer than {limits.source_time:g} s (source_time)"
        raise Failed(message, code="source_unreachable") from error


def check_status(answer: Answer) -> Answer:
    """The answer, where it is what was asked for; else the error that its status means."""
    where, status = answer.place.shown, answer.status
    if status == 200:
        return answer
    if status in (404, 410):
        raise Invalid(f"{where} is not there ({status})", code="source_not_found")
    if status == 429 or (status in (403, 503) and "retry-after" in answer.headers):
        raise rate_limited(answer, answer.headers.get("retry-after", ""))
    if status in (401, 403):
        raise Invalid(f"{where} may not be read ({status})", code="source_denied")
    raise Failed(f"{where} answers {status}", code="source_unreachable")


def rate_limited(answer: Answer, seconds: str) -> Overloaded:
    """The error for a server that answers no more for now; `seconds` is what it says of how long, if it is a number."""
    wait = min(float(seconds), 24 * 3600.0) if seconds.strip().isdecimal() else 60.0
    message = f"{answer.place.shown} answers no more for {wait:.0f} s ({answer.status})"
    return Overloaded(message, code="source_rate_limited", retry_after=wait)
