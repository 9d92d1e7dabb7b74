"""The registration protocol of the framed channels: a module makes itself known, stays known, and leaves.

These travel inside an envelope (requests) or bare (replies); they are tagged by `request_type` and `response_type`.
"""

from __future__ import annotations

import msgspec

from bema.core.redaction import hides
from bema.wire.module.handshake import EndpointAnnounce


class ModuleInfo(msgspec.Struct, kw_only=True):
    name: str
    version: str
    description: str


class RegisteredModule(msgspec.Struct, kw_only=True):
    info: ModuleInfo
    id: str
    token: str
    orchestrator_host: str
    orchestrator_port: int
    __repr__ = hides("token")


class Capabilities(msgspec.Struct, kw_only=True):
    endpoints: list[EndpointAnnounce]
    message_types: list[str]


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="request_type"):
    """Base of what a module asks."""


class Register(Request, kw_only=True, tag="register"):
    module_info: ModuleInfo


class HeartbeatReport(Request, kw_only=True, tag="heartbeat"):
    module_id: str
    token: str
    status: str
    details: dict[str, str] | None = None
    __repr__ = hides("token")


class Advertise(Request, kw_only=True, tag="capabilities"):
    module_id: str
    token: str
    capabilities: Capabilities
    __repr__ = hides("token")


class Unregister(Request, kw_only=True, tag="unregister"):
    module_id: str
    token: str
    __repr__ = hides("token")


class Reply(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="response_type"):
    """Base of what it is answered."""

    success: bool


class Registered(Reply, kw_only=True, tag="register"):
    module: RegisteredModule | None = None
    error: str | None = None


class HeartbeatReply(Reply, kw_only=True, tag="heartbeat"):
    status: str | None = None
    error: str | None = None


class Advertised(Reply, kw_only=True, tag="capabilities"):
    error: str | None = None


class Unregistered(Reply, kw_only=True, tag="unregister"):
    error: str | None = None


RegistrationRequest = Register | HeartbeatReport | Advertise | Unregister
RegistrationReply = Registered | HeartbeatReply | Advertised | Unregistered
