"""Chat: the turn's content is the list of messages."""

from __future__ import annotations

from typing import Any

from bema.compat.aiperf.common.factories import BaseEndpoint, EndpointFactory


@EndpointFactory.register("chat")
class ChatEndpoint(BaseEndpoint):
    async def format_payload(self, request_info: Any) -> dict[str, Any]:
        return {"messages": request_info.turns[0]["content"]}
