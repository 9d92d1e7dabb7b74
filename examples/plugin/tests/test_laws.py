"""What bema promises of every Discovery holds for this one."""

import pytest
from acme_discovery import CountingDiscovery

from bema.testing.conformance import laws


@pytest.mark.parametrize("law", laws("discovery"), ids=str)
def test_discovery(law):
    law(CountingDiscovery)
