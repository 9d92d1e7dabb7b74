"""Our RPC beside a bare echo, grpc.aio, ai-dynamo-runtime, nats-py, and any peer that is named."""
