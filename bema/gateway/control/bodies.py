"""What the control API takes and gives, as types: requests are decoded with them, and the document is made of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bema.core.errors import Invalid
from bema.core.keys import ApiKey
from bema.core.redaction import hides
from bema.deploy.model.deployment import CreateRequest, DataInfo, DeploymentInfo, VersionInfo
from bema.deploy.model.function import FunctionSettings
from bema.deploy.model.outdated import OutdatedPackage
from bema.deploy.secrets import SecretInfo
from bema.gateway.control.sources import Source, checked

__all__ = [
    "ChangeBody",
    "CreateBody",
    "CreateFields",
    "CreateForm",
    "DataFolders",
    "ErrorBody",
    "Function",
    "Functions",
    "KeyBody",
    "KeyInfo",
    "Keys",
    "ListBody",
    "NewKey",
    "OutdatedPackages",
    "RollbackBody",
    "SecretBody",
    "Secrets",
    "SettingsBody",
    "TrafficBody",
    "UpgradedFunction",
    "Versions",
]

_File = Annotated[str, msgspec.Meta(extra_json_schema={"format": "binary"})]


class ChangeBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be the next version of a deployment: either `source`, or `code` for short. Without `env` the variables stay as they are;
    `share` is the percentage of requests that the version begins with."""

    source: Source | None = None
    code: str | None = None
    env: dict[str, str] = {}
    settings: FunctionSettings = FunctionSettings()
    share: Annotated[int, msgspec.Meta(ge=1, le=100)] = 100
    __repr__ = hides("env", "source")

    def wanted(self, name: str = "", *, replace: bool = False) -> CreateRequest:
        """As the orchestrator is asked; `Invalid` where the code is not given once."""
        if (self.source is None) == (self.code is None):
            missing = self.code is None
            raise Invalid(
                f"the body has {'neither' if missing else 'both'} `source` {'nor' if missing else 'and'} `code`"
            )
        source = {"type": "inline", "code": self.code or ""} if self.source is None else checked(self.source)
        return CreateRequest(
            name=name,
            source=source,
            env=self.env,
            settings=self.settings,
            replace=replace,
            share=self.share,
        )


class CreateBody(ChangeBody, frozen=True, kw_only=True):
    """A script to deploy. `user` is whose it is: who asks, if left out. What has the name already stays, unless it failed or with `replace`, which
    makes this its next version."""

    name: str
    user: str = ""
    replace: bool = False
    __repr__ = hides("env", "source")


class SettingsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings that change while instances run."""

    settings: FunctionSettings


class RollbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `version` to go back to; the good one before the current, if left out."""

    version: str = ""


class TrafficBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`shares` in percent by version, 100 together; none gives all to the current version. `sticky` is that of the settings, left as it
    is where it is null."""

    shares: dict[str, Annotated[int, msgspec.Meta(ge=0, le=100)]] = {}
    sticky: str | None = None


class CreateForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A script to deploy, as a form: `data` is its file, whose name is the deployment's unless `name` is given."""

    data: _File
    name: str = ""
    user: str = ""


class CreateFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same, URL-encoded: without a file there is no name but the one that is given."""

    data: str
    name: str
    user: str = ""


class ErrorSaid(msgspec.Struct, frozen=True):
    """What failed, and the remedy; some have more fields, which say what the message says."""

    code: str
    message: str
    fix: str
    trace_id: str


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error of the API."""

    error: ErrorSaid


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


class UpgradedFunction(Function, frozen=True, kw_only=True):
    """The same with the `packages` that its next version has others of; none where it has no next version, or where only what
    a lock says beside versions is another."""

    packages: tuple[OutdatedPackage, ...]


class Versions(msgspec.Struct, frozen=True):
    items: list[VersionInfo]


class Functions(msgspec.Struct, frozen=True):
    items: list[Function]
    next: str | None = None


class DataFolders(msgspec.Struct, frozen=True):
    items: list[DataInfo]


class OutdatedPackages(msgspec.Struct, frozen=True):
    items: list[OutdatedPackage]


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
