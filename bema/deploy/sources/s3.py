"""The source that lies in a bucket of S3, or of what speaks as it does: an object, or all objects of a prefix.

Laws: the bytes come by the same checked connections as those of any URL. The platform's keys sign requests to its own server,
and to no other that somebody names. What was listed is what is fetched: an object that changes meanwhile is refused.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

import msgspec

from bema.core.errors import Failed, Invalid
from bema.core.limits import Limits
from bema.core.settings import current
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.source_fields import S3
from bema.deploy.sources.archives import is_archive, unpack, without_folder
from bema.deploy.sources.aws_signature import S3Keys, encoded, signed
from bema.deploy.sources.fetch import Answer, Fetcher, check_status, in_time, place_of
from bema.deploy.sources.source import Fetched, SourceOrigin, fields
from bema.deploy.sources.tree import bundle_of, check_counts, check_script

_URL: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.*)", re.S)
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")
_LISTING: Final = 4 * 1024 * 1024  # bytes: a thousand keys of a kilobyte, and what is said of them
_GONE: Final = 412


class _Object(msgspec.Struct, frozen=True):
    key: str
    size: int
    etag: str


class S3Source:
    """`url` is `s3://BUCKET/KEY`, or `s3://BUCKET/PREFIX/` for a tree; `endpoint` a server that is not AWS."""

    def __init__(
        self,
        url: str,
        fetcher: Fetcher,
        limits: Limits,
        *,
        endpoint: str = "",
        region: str = "us-east-1",
        keys: S3Keys | None = None,
        entry: str = "",
    ) -> None:
        found = _URL.fullmatch(url)
        if found is None:
            raise Invalid(f"{url[:80]!r} is not s3://BUCKET/KEY", code="source_refused")
        if not _REGION.fullmatch(region):
            raise Invalid(f"{region[:80]!r} is no region")
        self._bucket, self._key = found[1], found[2]
        self._base = _base(self._bucket, endpoint, region)
        self._region = region
        self._keys = keys
        self._fetcher = fetcher
        self._limits = limits
        self._entry = entry

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> S3Source:
        given, settings = fields(said, S3), current()
        own = settings.text("sources.s3_endpoint")
        # signed for a server of a stranger, a request would tell it a token that others take
        trusted = given.endpoint in ("", own)
        return cls(
            given.url,
            Fetcher(limits),
            limits,
            endpoint=given.endpoint or own,
            region=given.region or settings.text("sources.s3_region"),
            keys=S3Keys.of(settings.text("sources.s3_keys"), os.environ) if trusted else None,
            entry=given.entry,
        )

    async def fetch(self) -> Fetched:
        where = f"s3://{self._bucket}/{self._key}"
        async with in_time(self._limits):
            if not self._key or self._key.endswith("/"):
                return Fetched(bundle_of(await self._tree(), self._limits, self._entry), SourceOrigin("s3", where))
            answer = check_status(await self._get(self._object_url(self._key)))
        revision = answer.headers.get("x-amz-version-id") or answer.headers.get("etag", "")
        return Fetched(await self._bundle(answer.body), SourceOrigin("s3", where, revision[:200], answer.sha256))

    async def _bundle(self, content: bytes) -> Bundle:
        if is_archive(content):
            files = await asyncio.to_thread(unpack, content, self._limits)
            return bundle_of(without_folder(files), self._limits, self._entry)
        if self._entry:
            raise Invalid("`entry` is of an archive or a prefix, and this is one file", code="entry_file_missing")
        return Bundle.of_script(check_script(content, self._limits))

    async def _tree(self) -> dict[str, bytes]:
        objects = [one for one in await self._listed() if not one.key.endswith("/")]
        if not objects:
            raise Invalid(f"there is nothing below s3://{self._bucket}/{self._key}", code="source_not_found")
        check_counts(len(objects), sum(one.size for one in objects), self._limits)
        files: dict[str, bytes] = {}
        left = self._limits.source_bytes
        for one in objects:
            answer = await self._get(self._object_url(one.key), left, {"if-match": one.etag} if one.etag else {})
            if answer.status == _GONE:
                message = f"s3://{self._bucket}/{one.key} changed while it was fetched"
                raise Invalid(message, code="source_changed", fix="Try again.")
            files[one.key.removeprefix(self._key)] = content = check_status(answer).body
            left -= len(content)
        return files

    async def _listed(self) -> list[_Object]:
        found: list[_Object] = []
        token = ""
        while True:
            query = {"encoding-type": "url", "list-type": "2", "prefix": self._key}
            query |= {"continuation-token": token} if token else {}
            text = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in sorted(query.items()))
            answer = check_status(await self._get(f"{self._base}?{text}", _LISTING))
            objects, token = _read_listing(answer, self._key)
            found += objects
            check_counts(len(found), 0, self._limits)
            if not token:
                return found

    def _object_url(self, key: str) -> str:
        return f"{self._base}{encoded(key, '/')}"

    async def _get(self, url: str, most: int | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        sent = dict(headers or {})
        if self._keys is not None:
            sent |= signed(url, self._region, self._keys, time.time())
        return await self._fetcher.get(url, sent, most)


def _base(bucket: str, endpoint: str, region: str) -> str:
    """What the keys of a bucket are appended to. A server of one's own seldom has a name for each bucket."""
    if endpoint:
        place = place_of(endpoint)
        return f"{place.origin}{place.target.rstrip('/')}/{bucket}/"
    host = f"s3.{region}.amazonaws.com"
    # a certificate is for one label
    return f"https://{host}/{bucket}/" if "." in bucket else f"https://{bucket}.{host}/"


def _read_listing(answer: Answer, prefix: str) -> tuple[list[_Object], str]:
    """The objects of a page, and the token of the next; empty where this is the last."""
    try:
        text = answer.body.decode()
        # a document type may define texts that grow without end
        if "<!" in text:
            raise ValueError("it has a document type")
        root = ET.fromstring(text)
        objects = [
            _Object(unquote_plus(_of(one, "Key")), int(_of(one, "Size")), _of(one, "ETag"))
            for one in root.iterfind("{*}Contents")
        ]
        if not root.tag.endswith("ListBucketResult") or not all(one.key.startswith(prefix) for one in objects):
            raise ValueError("it is none of this prefix")
    except (ValueError, ET.ParseError) as error:
        raise Failed(f"{answer.place.shown} lists no objects: {error}", code="source_unreachable") from error
    token = _of(root, "NextContinuationToken") if _of(root, "IsTruncated") == "true" else ""
    return objects, token


def _of(element: ET.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
