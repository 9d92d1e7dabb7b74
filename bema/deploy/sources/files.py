"""The source whose files stand in the request: a text by path, or an object with the bytes in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from bema.core.errors import Invalid
from bema.core.limits import DEFAULTS, Limits
from bema.deploy.model.source_fields import FileContent, Files
from bema.deploy.sources.inline import encoded
from bema.deploy.sources.source import Fetched, SourceOrigin, fields
from bema.deploy.sources.tree import bundle_of


class FilesSource:
    """`files` by path, each `TEXT`, `{"base64": ...}`, or `{"content": TEXT}` as in the body of a gist."""

    def __init__(self, files: Mapping[str, bytes], entry: str = "", limits: Limits = DEFAULTS) -> None:
        self._files = files
        self._entry = entry
        self._limits = limits

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> FilesSource:
        given = fields(said, Files)
        return cls({path: _content(path, value) for path, value in given.files.items()}, given.entry, limits)

    async def fetch(self) -> Fetched:
        return Fetched(bundle_of(self._files, self._limits, self._entry), SourceOrigin("files"))


def _content(path: str, value: str | FileContent) -> bytes:
    match value:
        case str(text) | FileContent(content=str(text), base64=None):
            return encoded(text)
        case FileContent(content=None, base64=str(text)):
            return decoded(text, f"files.{path}")
    raise Invalid(f"files.{path} is neither a text nor an object with `content` or `base64`")


def decoded(text: str, name: str) -> bytes:
    """The bytes of base64; `Invalid` names whose they are not."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{name} is not base64: {error}") from error
