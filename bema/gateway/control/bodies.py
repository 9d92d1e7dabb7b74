"""What the control API takes and gives, as types: requests are decoded with them, and the document is made of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bema.core.keys import ApiKey
from bema.core.redaction import hides
from bema.deploy.model.deployment import DataInfo, DeploymentInfo
from bema.deploy.model.source_fields import SourceFields
from bema.deploy.secrets import SecretInfo

__all__ = [
    "CreateBody",
    "CreateForm",
    "DataFolders",
    "Function",
    "Functions",
    "KeyBody",
    "KeyInfo",
    "Keys",
    "ListBody",
    "NewKey",
    "SecretBody",
    "Secrets",
]

_File = Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]


class CreateBody(msgspec.Struct, frozen=True):
    """A script to deploy: either `source`, or `code` for short. `user` is whose it is; who asks, if left out."""

    name: str
    source: SourceFields | None = None
    code: str | None = None
    env: dict[str, str] = {}
    user: str = ""
    __repr__ = hides("env", "source")


class CreateForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A script to deploy, as a form: `data` is its file, whose name is the deployment's unless `name` is given."""

    data: _File
    name: str = ""
    user: str = ""


class ListBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a list can be asked in a body, beside the query."""

    user: str = ""


class Function(DeploymentInfo, frozen=True, kw_only=True):
    """A deployment as the API shows it: `url` is where the data listener answers for it."""

    url: str

    @classmethod
    def of(cls, info: DeploymentInfo, gateway: str) -> Function:
        said: dict[str, Any] = {name: getattr(info, name) for name in info.__struct_fields__}
        return cls(**said, url=f"{gateway}/gateway/{info.id}")


class Functions(msgspec.Struct, frozen=True):
    items: list[Function]
    next: str | None = None


class DataFolders(msgspec.Struct, frozen=True):
    items: list[DataInfo]


class KeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to make: `user` is who its holder is, its `name` if left out; `expires_in` seconds from now, if ever."""

    name: str
    user: str = ""
    admin: bool = False
    expires_in: Annotated[int, msgspec.Meta(gt=0, le=100 * 366 * 86400)] | None = None


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a key: all but the key. Instants are microseconds UTC; `expires` is 0 for one that does not."""

    name: str
    user: str
    admin: bool
    created: int
    expires: int

    @classmethod
    def of(cls, key: ApiKey) -> KeyInfo:
        return cls(**_told(key))


class Keys(msgspec.Struct, frozen=True):
    items: list[KeyInfo]


class NewKey(KeyInfo, frozen=True, kw_only=True):
    """A key that was just made: `key` is told this once."""

    key: str
    __repr__ = hides("key")

    @classmethod
    def made(cls, key: ApiKey, text: str) -> NewKey:
        return cls(**_told(key), key=text)


class SecretBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value of a secret."""

    value: str
    __repr__ = hides("value")


class Secrets(msgspec.Struct, frozen=True):
    items: list[SecretInfo]


def _told(key: ApiKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in KeyInfo.__struct_fields__}
