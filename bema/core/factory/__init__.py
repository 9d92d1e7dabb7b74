"""Anything replaceable: where its implementations are named, chosen and made."""

from bema.core.factory.factory import Factory

__all__ = ["Factory"]
