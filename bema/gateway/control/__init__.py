"""The control listener: the platform's own API and its metrics."""
