"""What the gateway asks of the orchestrator, as its typed handle answers it.

Law: the gateway keeps no copy of what is deployed; every answer of the control API is the orchestrator's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

from bema.core.access import Principal
from bema.deploy.model.deployment import Activation, CreateRequest, DeploymentInfo, DeploymentPage

__all__ = ["OrchestratorClient"]


class OrchestratorClient(Protocol):
    def create(self, request: CreateRequest, principal: Principal, key: str = "") -> Awaitable[DeploymentInfo]: ...
    def list(self, principal: Principal, after: str = "", count: int = 100) -> Awaitable[DeploymentPage]: ...
    def read(self, id: str, principal: Principal) -> Awaitable[DeploymentInfo]: ...
    def delete(self, id: str, principal: Principal) -> Awaitable[None]: ...
    def activate(self, id: str, wait: float, principal: Principal) -> Awaitable[Activation]: ...
    def status(self, principal: Principal) -> Awaitable[dict[str, Any]]: ...
    def logs(
        self, id: str, principal: Principal, tail: int = 100, follow: bool = False, since: int = 0
    ) -> AsyncIterator[dict[str, Any]]: ...
