"""Which addresses code may be fetched from: those of the public internet, and the networks that the settings name.

Law: whoever deploys chooses the URL, and the platform stands where its neighbours trust it. So an address is refused by what it
leads to, in whatever form it is written: an IPv4 address within an IPv6 one is judged as itself. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from bema.core.errors import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# beside what no version of `ipaddress` calls global
_REFUSED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"),
        "168.63.129.16/32",  # the machine's own host on Azure, at a public address
        "::/96",  # what was called compatible to IPv4
        "64:ff9b:1::/48",  # translated to IPv4 by whatever rule a network has
        *("fec0::/10", "5f00::/16", "100::/64"),
    )
)
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")


class Networks:
    """What is allowed beside the public internet: `text` names networks between commas, such as `10.0.0.0/8`.

    Raises:
        Refused: one of them is no network (bad_setting).
    """

    def __init__(self, text: str = "") -> None:
        try:
            self._allowed = tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise Refused(f"sources.networks: {error}", code="bad_setting") from error

    def allow(self, address: str) -> bool:
        """Whether code may come from there; an address with a zone, or that is none, is not allowed."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return all(self._allows(each) for each in _all_of(found))

    def _allows(self, address: Address) -> bool:
        if any(address in network for network in self._allowed):
            return True
        refused = any(address in network for network in _REFUSED)
        return address.is_global and not address.is_multicast and not refused


def _all_of(address: Address) -> Iterator[Address]:
    """The addresses that one leads to: what an IPv6 address carries of IPv4, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _TRANSLATED:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo
