"""What goes wrong with parts, split by whose fault it is."""

from __future__ import annotations

from bema.core.errors import BemaError


class FactoryError(BemaError):
    """Base: a factory could not give what was asked of it."""

    code = "no_implementation"


class UnknownImplementation(FactoryError, LookupError):
    """Nothing has that name, or no candidate is what was selected: the caller or the settings are to change."""

    code = "no_implementation"


class LoadFailed(FactoryError):
    """A selected implementation cannot be used; the original error, where there is one, is the cause."""

    code = "implementation_failed"


class ConstructionFailed(FactoryError):
    """The implementation's constructor raised; the original error is the cause."""

    code = "construction_failed"
