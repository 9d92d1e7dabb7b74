"""The errors of factories, one class for each party at fault."""

from __future__ import annotations

from bema.core.errors import BemaError


class FactoryError(BemaError):
    """The base of these errors: a factory could not give what was asked of it."""

    code = "no_implementation"


class UnknownImplementation(FactoryError, LookupError):
    """Nothing has that name, or no candidate is the selected one: change the call or the settings. A `LookupError` too."""

    code = "no_implementation"


class LoadFailed(FactoryError):
    """A selected implementation cannot be used; the original error, where there is one, is the cause."""

    code = "implementation_failed"


class ConstructionFailed(FactoryError):
    """The implementation's constructor raised; the original error is the cause."""

    code = "construction_failed"
