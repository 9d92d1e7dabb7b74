"""HTTP/1.1 as bytes between a client and an instance: heads are guarded, bodies are spliced."""
