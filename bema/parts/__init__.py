"""Parts: anything replaceable, with the factories that name, choose and make implementations."""

from bema.parts.discover import DiscoveryReport
from bema.parts.errors import ConstructionFailed, FactoryError, LoadFailed, UnknownImplementation
from bema.parts.factory import Factory
from bema.parts.manifest import PartInfo
from bema.parts.selection import Change

__all__ = [
    "Change",
    "ConstructionFailed",
    "DiscoveryReport",
    "Factory",
    "FactoryError",
    "LoadFailed",
    "PartInfo",
    "UnknownImplementation",
]
