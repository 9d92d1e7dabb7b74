"""Typed clients as text, for callers without the class."""
