"""Conformance: the laws of each kind of part, to be run by whoever writes an implementation.

    import pytest
    from bema.testing.conformance import laws

    @pytest.mark.parametrize("law", laws("discovery"), ids=str)
    def test_my_discovery(law, tmp_path):
        law(lambda: MyDiscovery(tmp_path))

Law: bema's own implementations pass the same suites by the same call. A suite needs no test framework.
"""

from bema.testing.conformance.frame import Law, Violation, check, kinds, laws

__all__ = ["Law", "Violation", "check", "kinds", "laws"]
