"""Completions: the turn's content is the prompt."""

from __future__ import annotations

from typing import Any

from bema.compat.aiperf.common.factories import BaseEndpoint, EndpointFactory


@EndpointFactory.register("completions")
class CompletionsEndpoint(BaseEndpoint):
    async def format_payload(self, request_info: Any) -> dict[str, Any]:
        return {"prompt": request_info.turns[0]["content"]}
