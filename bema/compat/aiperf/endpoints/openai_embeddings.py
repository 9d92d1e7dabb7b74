"""Embeddings: the turn's content is the input."""

from __future__ import annotations

from typing import Any

from bema.compat.aiperf.common.factories import BaseEndpoint, EndpointFactory


@EndpointFactory.register("embeddings")
class EmbeddingsEndpoint(BaseEndpoint):
    async def format_payload(self, request_info: Any) -> dict[str, Any]:
        return {"input": request_info.turns[0]["content"]}
