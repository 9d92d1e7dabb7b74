"""The source that is an archive of a tree, a zip or a tar, at a URL or in the request itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

from bema.core.errors import Invalid
from bema.core.limits import Limits
from bema.deploy.model.source_fields import Zip
from bema.deploy.sources.archives import is_archive, unpack, without_folder
from bema.deploy.sources.fetch import Fetcher
from bema.deploy.sources.files import decoded
from bema.deploy.sources.source import CodeSource, Fetched, SourceOrigin, fields
from bema.deploy.sources.tree import bundle_of
from bema.deploy.sources.url import UrlSource


class ZipSource:
    """`data`, the archive in base64; or `url`, which is a source of its own. `entry` names the file that is run."""

    def __init__(self, content: bytes, limits: Limits, entry: str = "") -> None:
        self._content = content
        self._limits = limits
        self._entry = entry

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> CodeSource:
        given = fields(said, Zip)
        if bool(given.url) == bool(given.data):
            raise Invalid("a zip source has either `url` or `data`")
        if given.url:
            return UrlSource(given.url, Fetcher(limits), limits, sha256=given.sha256, entry=given.entry)
        if given.sha256:
            raise Invalid("`sha256` is of a `url`; `data` is what it is")
        return cls(decoded(given.data, "data"), limits, given.entry)

    async def fetch(self) -> Fetched:
        """`Invalid` (archive_refused) for what is no archive of plain files; `TooLarge` (source_too_large)."""
        if not is_archive(self._content):
            raise Invalid("this is neither a zip nor a tar", code="archive_refused")
        files = await asyncio.to_thread(unpack, self._content, self._limits)
        origin = SourceOrigin("zip", sha256=hashlib.sha256(self._content).hexdigest())
        return Fetched(bundle_of(without_folder(files), self._limits, self._entry), origin)
