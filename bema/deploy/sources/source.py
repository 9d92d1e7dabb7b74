"""Where the files of a version come from. A new kind of source is one class and its row here.

Law: a source is fetched once, when something is deployed. From then on the Bundle is all there is of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bema.core.limits import Limits
from bema.core.version import VERSION
from bema.deploy.model.bundle import Bundle
from bema.parts import Factory


class CodeSource(Protocol):
    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> CodeSource:
        """The source that a request describes: the fields of its own kind. `Invalid` when one is missing or wrong."""
        ...

    async def fetch(self) -> Bundle:
        """The files, whole; or the error that whoever deploys should see."""
        ...


class SourceFactory(Factory[CodeSource], group="bema.source", api=VERSION):
    """The kinds of source by name; made with `of`."""


SourceFactory.register_lazy("inline", "bema.deploy.sources.inline:InlineSource")
