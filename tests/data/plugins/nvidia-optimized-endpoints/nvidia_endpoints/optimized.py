"""The plugin of the design: three endpoints that stand in for the builtins."""

from bema.compat.aiperf.endpoints import ChatEndpoint, CompletionsEndpoint, EmbeddingsEndpoint


class OptimizedChatEndpoint(ChatEndpoint):
    async def format_payload(self, request_info):
        return {**await super().format_payload(request_info), "optimized": True}


class OptimizedEmbeddingsEndpoint(EmbeddingsEndpoint):
    pass


class OptimizedCompletionsEndpoint(CompletionsEndpoint):
    pass
