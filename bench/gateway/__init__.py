"""The data listener beside nginx and an ASGI proxy, under wrk."""
