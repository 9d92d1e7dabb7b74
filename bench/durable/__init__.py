"""Durable calls beside peers and beside SQLite's own commits: `python3 dev.py bench durable`."""
