"""Anything replaceable: where its implementations are named, chosen and made."""

from bema.parts.discover import DiscoveryReport
from bema.parts.errors import ConstructionFailed, FactoryError, LoadFailed, UnknownImplementation
from bema.parts.factory import Factory
from bema.parts.selection import Change

__all__ = [
    "Change",
    "ConstructionFailed",
    "DiscoveryReport",
    "Factory",
    "FactoryError",
    "LoadFailed",
    "UnknownImplementation",
]
