"""Endurance: the same work for a long time, watching for what grows."""
