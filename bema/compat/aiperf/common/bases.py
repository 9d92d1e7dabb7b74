"""What an endpoint and a transport are."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


class BaseEndpoint:
    """Writes the payload of a request. As it stands it sends the first turn as it is."""

    def __init__(self, model_endpoint: Any = None, **settings: Any) -> None:
        self.model_endpoint = model_endpoint
        self.settings = settings

    async def format_payload(self, request_info: Any) -> dict[str, Any]:
        return dict(request_info.turns[0])


class BaseTransport:
    """Turns an address as the user wrote it into the one that is dialled."""

    scheme = ""
    default_port = 0

    def __init__(self, model_endpoint: Any = None, **settings: Any) -> None:
        self.model_endpoint = model_endpoint
        self.settings = settings

    def build_url(self, address: str) -> str:
        """`host`, `host:port` or a whole URL, as the URL this transport dials."""
        parts = urlsplit(address if "//" in address else f"//{address}", self.scheme)
        host = parts.hostname or "localhost"
        bracketed = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{bracketed}:{parts.port or self.default_port}{parts.path}"
