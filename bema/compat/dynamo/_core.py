"""`dynamo._core`: the names of its compiled part, which programs import from there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from bema.compat.dynamo.instances import Instance, TransportType
from bema.compat.dynamo.llm.exceptions import WorkerShutdown
from bema.compat.dynamo.metadata import ContextMetadata
from bema.compat.dynamo.refused import refuse
from bema.compat.dynamo.runtime import (
    Cancelled,
    CannotConnect,
    Client,
    Component,
    ConnectionTimeout,
    Context,
    Disconnected,
    DistributedRuntime,
    DynamoException,
    Endpoint,
    EngineShutdown,
    InvalidArgument,
    Namespace,
    RouterMode,
    RouterQueueLimitExceeded,
    StreamIncomplete,
    Unknown,
    WorkerUnavailable,
)

__all__ = [
    "Cancelled",
    "CannotConnect",
    "Client",
    "Component",
    "ConnectionTimeout",
    "Context",
    "ContextMetadata",
    "Disconnected",
    "DistributedRuntime",
    "DynamoException",
    "Endpoint",
    "EngineShutdown",
    "Instance",
    "InvalidArgument",
    "Namespace",
    "RouterMode",
    "RouterQueueLimitExceeded",
    "StreamIncomplete",
    "TransportType",
    "Unknown",
    "WorkerShutdown",
    "WorkerUnavailable",
    "log_message",
]


_LEVELS = {**logging.getLevelNamesMapping(), "TRACE": logging.DEBUG}


def log_message(level: str, message: str, module: str, file: str, line: int) -> None:
    """Log a message as said at that line of that module."""
    logger = logging.getLogger(module)
    number = _LEVELS.get(level.upper(), logging.INFO)
    if logger.isEnabledFor(number):
        logger.handle(logger.makeRecord(module, number, file, line, message, (), None))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return refuse("dynamo._core", name)
