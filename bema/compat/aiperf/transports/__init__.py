"""The builtin transports: importing this package registers http, http2, grpc and in_engine."""

from __future__ import annotations

from bema.compat.aiperf.common.factories import BaseTransport, TransportFactory

__all__ = ["BaseTransport", "GrpcTransport", "Http2Transport", "HttpTransport", "InEngineTransport"]


@TransportFactory.register("http")
class HttpTransport(BaseTransport):
    scheme = "http"
    default_port = 80


@TransportFactory.register("http2")
class Http2Transport(BaseTransport):
    scheme = "https"
    default_port = 443


@TransportFactory.register("grpc")
class GrpcTransport(BaseTransport):
    scheme = "grpc"
    default_port = 50051


@TransportFactory.register("in_engine")
class InEngineTransport(BaseTransport):
    """The model runs in this process: there is no address to dial."""

    def build_url(self, address: str) -> str:
        return "memory:"
