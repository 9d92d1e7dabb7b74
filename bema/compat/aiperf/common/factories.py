"""EndpointFactory and TransportFactory, one class statement each."""

from __future__ import annotations

from bema.compat.aiperf.common.bases import BaseEndpoint, BaseTransport
from bema.parts import Factory

__all__ = ["BaseEndpoint", "BaseTransport", "EndpointFactory", "TransportFactory"]


class EndpointFactory(Factory[BaseEndpoint], group="aiperf.endpoints"):
    """How a request to a model is written and its answer read."""


class TransportFactory(Factory[BaseTransport], group="aiperf.transports"):
    """How a written request travels."""
