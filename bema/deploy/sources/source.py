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
from bema.parts import Factory

_Said = TypeVar("_Said", bound=msgspec.Struct)


class SourceOrigin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the files of a version came from, as it is shown.

    `revision` is what was there at that moment: a commit, a revision, an ETag. `sha256` is that of what was fetched, in hex.
    """

    type: str
    where: str = ""
    revision: str = ""
    sha256: str = ""


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


def fields(said: Mapping[str, Any], type: type[_Said]) -> _Said:
    """What a request says of a source, as the fields of its kind. `Invalid` names the one that does not fit."""
    try:
        return msgspec.convert({name: value for name, value in said.items() if name != "type"}, type)
    except msgspec.ValidationError as error:
        raise Invalid(f"the source does not fit: {error}") from error


SourceFactory.register_lazy("inline", "bema.deploy.sources.inline:InlineSource")
SourceFactory.register_lazy("files", "bema.deploy.sources.files:FilesSource")
SourceFactory.register_lazy("url", "bema.deploy.sources.url:UrlSource")
SourceFactory.register_lazy("zip", "bema.deploy.sources.zip:ZipSource")
SourceFactory.register_lazy("gist", "bema.deploy.sources.gist:GistSource")
SourceFactory.register_lazy("git", "bema.deploy.sources.git:GitSource")
SourceFactory.register_lazy("s3", "bema.deploy.sources.s3:S3Source")
