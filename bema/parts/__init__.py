"""Anything replaceable: where its implementations are named, chosen and made."""

from bema.core.factory.errors import ConstructionFailed, FactoryError, LoadFailed, UnknownImplementation
from bema.core.factory.factory import Factory
from bema.core.factory.report import Report
from bema.core.factory.switching import Change

__all__ = [
    "Change",
    "ConstructionFailed",
    "Factory",
    "FactoryError",
    "LoadFailed",
    "Report",
    "UnknownImplementation",
]
