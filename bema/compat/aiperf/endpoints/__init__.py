"""The builtin endpoints: importing this package registers chat, completions and embeddings."""

from bema.compat.aiperf.common.bases import BaseEndpoint
from bema.compat.aiperf.endpoints.openai_chat import ChatEndpoint
from bema.compat.aiperf.endpoints.openai_completions import CompletionsEndpoint
from bema.compat.aiperf.endpoints.openai_embeddings import EmbeddingsEndpoint

__all__ = ["BaseEndpoint", "ChatEndpoint", "CompletionsEndpoint", "EmbeddingsEndpoint"]
