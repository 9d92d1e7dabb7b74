"""What a request says of where code comes from: one type for each kind of source that comes with bema, told apart by `type`.

Law: pure data, for the API's document as much as for the sources themselves. A field that a kind does not have is refused.
"""

from __future__ import annotations

import msgspec

from bema.core.redaction import hides


class Inline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="inline"):
    """The script itself."""

    code: str


class FileContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as text, as in the body of a gist, or as bytes in base64."""

    content: str | None = None
    base64: str | None = None


class Files(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="files"):
    """A tree: contents by path. `entry` is the file that is run."""

    files: dict[str, str | FileContent]
    entry: str = ""


class Url(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="url"):
    """A script or an archive of the web; with `sha256`, in hex, no other content is taken."""

    url: str
    sha256: str = ""
    entry: str = ""
    __repr__ = hides("url")


class Zip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="zip"):
    """An archive, a zip or a tar: `data` in base64, or at a `url`."""

    url: str = ""
    data: str = ""
    sha256: str = ""
    entry: str = ""
    __repr__ = hides("url")


class Gist(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="gist"):
    """A gist, as it is or as a `revision` was, the whole SHA; `file` is the one that is run."""

    id: str
    revision: str = ""
    file: str = ""


class Git(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="git"):
    """The folder `path` of a repository, at the branch, tag or whole commit `ref`."""

    url: str
    ref: str = ""
    path: str = ""
    entry: str = ""
    __repr__ = hides("url")


class S3(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="s3"):
    """`s3://BUCKET/KEY`, or all objects below `s3://BUCKET/PREFIX/`; `endpoint` is a server that is not the platform's."""

    url: str
    endpoint: str = ""
    region: str = ""
    entry: str = ""


SourceFields = Inline | Files | Url | Zip | Gist | Git | S3
