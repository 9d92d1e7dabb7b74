"""The source that is a gist: the files of one revision, by GitHub's API or one of its shape.

Laws: a revision is pinned, asked for or not, and what is fetched piece by piece is of that one. The platform's token goes to the API
that it is for, and nowhere else.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bema.core.errors import Failed, Invalid, TooLarge
from bema.core.limits import Limits
from bema.core.settings import current
from bema.deploy.model.source_fields import Gist
from bema.deploy.sources.fetch import Answer, Fetcher, check_status, in_time, rate_limited
from bema.deploy.sources.source import Fetched, SourceOrigin, fields
from bema.deploy.sources.tree import bundle_of, check_counts

_HEADERS: Final = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}


class _File(msgspec.Struct):
    """A file as the API tells of it: what is large is not whole in `content`, and lies at `raw_url`."""

    raw_url: str
    size: int
    truncated: bool = False
    content: str | None = None


class _Revision(msgspec.Struct):
    version: str


class _Gist(msgspec.Struct):
    files: dict[str, _File]
    history: list[_Revision]
    truncated: bool = False


class GistSource:
    """The gist `id`, as it is or as `revision` (the whole SHA) was; `file` names the one that is run."""

    def __init__(
        self,
        id: str,
        fetcher: Fetcher,
        limits: Limits,
        *,
        revision: str = "",
        file: str = "",
        api: str = "https://api.github.com",
        token: str = "",
    ) -> None:
        # both become part of a path
        if not re.fullmatch(r"[0-9A-Za-z]{1,64}", id):
            raise Invalid(f"{id[:80]!r} is not the id of a gist")
        if revision and not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise Invalid(f"{revision[:80]!r} is no revision: the whole SHA, 40 digits in hex")
        self._path = f"/gists/{id}/{revision}" if revision else f"/gists/{id}"
        self._id = id
        self._api = api.rstrip("/")
        self._fetcher = fetcher
        self._limits = limits
        self._file = file
        self._headers = _HEADERS | ({"authorization": f"Bearer {token}"} if token else {})

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> GistSource:
        given, settings = fields(said, Gist), current()
        return cls(
            given.id,
            Fetcher(limits),
            limits,
            revision=given.revision,
            file=given.file,
            api=settings.text("sources.gist_api"),
            token=os.environ.get(settings.text("sources.gist_token"), "").strip(),
        )

    async def fetch(self) -> Fetched:
        async with in_time(self._limits):
            gist = await self._gist()
            files: dict[str, bytes] = {}
            size = 0
            for name, file in gist.files.items():
                files[name] = await self._content(name, file, self._limits.source_bytes - size)
                size += len(files[name])
                check_counts(len(files), size, self._limits)
        where = f"gist:{self._id}" + (f"#{self._file}" if self._file else "")
        origin = SourceOrigin("gist", where, gist.history[0].version)
        return Fetched(bundle_of(files, self._limits, self._file), origin)

    async def _gist(self) -> _Gist:
        answer = await self._fetcher.get(self._api + self._path, self._headers)
        _check_rate(answer)
        try:
            gist = msgspec.json.decode(check_status(answer).body, type=_Gist)
        except msgspec.DecodeError as error:
            message = f"{answer.place.shown} does not tell of a gist: {error}"
            raise Failed(message, code="source_unreachable") from error
        if not gist.history:
            raise Failed(f"{answer.place.shown} tells no revision", code="source_unreachable")
        if gist.truncated:
            message = f"gist {self._id} has more files than the API tells of"
            raise TooLarge(message, code="source_too_large", limit=len(gist.files))
        return gist

    async def _content(self, name: str, file: _File, most: int) -> bytes:
        told = b"" if file.content is None else file.content.encode("utf-8", "surrogatepass")
        # what is no text is not told as it is, and has another size
        if file.content is not None and not file.truncated and len(told) == file.size:
            return told
        if file.size > most:
            check_counts(1, self._limits.source_bytes + 1, self._limits)
        answer = await self._fetcher.get(file.raw_url, most=most)
        _check_rate(answer)
        content = check_status(answer).body
        if len(content) != file.size:
            message = f"{name} of gist {self._id} came with {len(content)} of its {file.size} bytes"
            raise Failed(message, code="source_unreachable")
        return content


def _check_rate(answer: Answer) -> None:
    """GitHub says 403 or 429 to who has asked too often, and when that is over as an instant."""
    if answer.status in (403, 429) and answer.headers.get("x-ratelimit-remaining") == "0":
        until = answer.headers.get("x-ratelimit-reset", "")
        wait = str(max(1, int(until) - int(time.time()))) if until.isdecimal() else ""
        raise rate_limited(answer, answer.headers.get("retry-after") or wait)
