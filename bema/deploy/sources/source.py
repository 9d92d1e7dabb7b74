"""Where the files of a version come from. A new kind of source is one class and its row here.

Laws: a source is fetched once, when something is deployed; from then on the Bundle is all there is of it. What is shown of where
it came from holds no credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from bema.core.errors import Invalid
from bema.core.limits import Limits
from bema.core.version import VERSION
from bema.deploy.model.bundle import Bundle
from bema.parts import Factory, UnknownImplementation

_Said = TypeVar("_Said", bound=msgspec.Struct)


class SourceOrigin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the files of a version came from, as it is shown.

    `revision` is what was there at that moment: a commit, a revision, an ETag. `sha256` is that of what was fetched, in hex.
    """

    type: str
    where: str = ""
    revision: str = ""
    sha256: str = ""

    @property
    def pinned(self) -> str:
        """In one line, as `bema deploy` takes it: what was there at that moment, as far as its kind can name that."""
        place, mark, rest = self.where.partition("#")
        match self.type:
            case "git" | "gist" if self.revision:
                return f"{place}@{self.revision}{mark}{rest}"
            case "url" if self.sha256:
                return f"{self.where}#sha256={self.sha256}"
        return self.where or self.type


class Fetched(msgspec.Struct, frozen=True):
    bundle: Bundle
    origin: SourceOrigin


class CodeSource(Protocol):
    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> CodeSource:
        """The source that a request describes: the fields of its own kind. `Invalid` when one is missing, wrong or unknown."""
        ...

    async def fetch(self) -> Fetched:
        """The files, whole; or the error that whoever deploys should see."""
        ...


class SourceFactory(Factory[CodeSource], group="bema.source", api=VERSION):
    """The kinds of source by name; made with `of`."""


def source_said(said: Mapping[str, Any], limits: Limits) -> CodeSource:
    """The source that a request describes, by its `type`. `Invalid` where there is no such kind, or a field is wrong."""
    kind = said.get("type")
    if not isinstance(kind, str) or not kind:
        raise Invalid("the source has no `type`, such as inline, files, url, zip, gist, git or s3")
    try:
        found = SourceFactory.choose(kind)
    except UnknownImplementation as error:
        raise Invalid(f"source.type: {error.message}") from error
    return found.of(said, limits)


def fields(said: Mapping[str, Any], type: type[_Said]) -> _Said:
    """What a request says of a source, as the fields of its kind. `Invalid` names the one that does not fit."""
    try:
        return msgspec.convert(said, type)
    except msgspec.ValidationError as error:
        raise Invalid(f"the source does not fit: {error}") from error


SourceFactory.register_lazy("inline", "bema.deploy.sources.inline:InlineSource")
SourceFactory.register_lazy("files", "bema.deploy.sources.files:FilesSource")
SourceFactory.register_lazy("url", "bema.deploy.sources.url:UrlSource")
SourceFactory.register_lazy("zip", "bema.deploy.sources.zip:ZipSource")
SourceFactory.register_lazy("gist", "bema.deploy.sources.gist:GistSource")
SourceFactory.register_lazy("git", "bema.deploy.sources.git:GitSource")
SourceFactory.register_lazy("s3", "bema.deploy.sources.s3:S3Source")
