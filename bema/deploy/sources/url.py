"""The source that is one file of the web: a script, or an archive of a tree, told apart by content."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from bema.core.errors import Invalid
from bema.core.limits import Limits
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.source_fields import Url
from bema.deploy.sources.archives import is_archive, unpack, without_folder
from bema.deploy.sources.fetch import Answer, Fetcher, check_status, in_time
from bema.deploy.sources.source import Fetched, SourceOrigin, fields
from bema.deploy.sources.tree import bundle_of, check_script

_LONGEST_REVISION = 200


class UrlSource:
    """`url`, http or https. With `sha256`, in hex, nothing else is taken; `entry` names the file of an archive that is run."""

    def __init__(self, url: str, fetcher: Fetcher, limits: Limits, *, sha256: str = "", entry: str = "") -> None:
        self._url = url
        self._fetcher = fetcher
        self._limits = limits
        self._sha256 = checked_sha256(sha256)
        self._entry = entry

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> UrlSource:
        given = fields(said, Url)
        return cls(given.url, Fetcher(limits), limits, sha256=given.sha256, entry=given.entry)

    async def fetch(self) -> Fetched:
        async with in_time(self._limits):
            answer = check_status(await self._fetcher.get(self._url))
        check_sha256(answer, self._sha256)
        if is_archive(answer.body):
            files = await asyncio.to_thread(unpack, answer.body, self._limits)
            bundle = bundle_of(without_folder(files), self._limits, self._entry)
        else:
            bundle = self._script(answer)
        return Fetched(bundle, origin_of(answer, "url"))

    def _script(self, answer: Answer) -> Bundle:
        if answer.headers.get("content-type", "").startswith("text/html"):
            # what a browser shows of a file, and who is asked to log in is shown, too
            message = f"{answer.place.shown} is a web page and no script; name the raw file"
            raise Invalid(message, code="source_not_found")
        if self._entry:
            raise Invalid("`entry` is of an archive, and this is one file", code="entry_file_missing")
        return Bundle.of_script(check_script(answer.body, self._limits))


def origin_of(answer: Answer, type: str) -> SourceOrigin:
    return SourceOrigin(type, answer.place.shown, answer.headers.get("etag", "")[:_LONGEST_REVISION], answer.sha256)


def checked_sha256(text: str) -> str:
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise Invalid("sha256 is not 64 digits in hex")
    return text.lower()


def check_sha256(answer: Answer, wanted: str) -> None:
    """`Invalid` (source_changed) where the body is another than the one that was asked for."""
    if wanted and answer.sha256 != wanted:
        message = f"{answer.place.shown} has the SHA-256 {answer.sha256}, not {wanted}"
        raise Invalid(message, code="source_changed", sha256=answer.sha256)
