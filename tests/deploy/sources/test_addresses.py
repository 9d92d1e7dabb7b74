"""An address is judged by where it leads, in whatever form it is written."""

import ipaddress

import pytest
from hypothesis import given, strategies

from bema.core.errors import Refused
from bema.deploy.sources.addresses import Networks

PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200"),
    *("169.254.169.254", "168.63.129.16", "192.0.0.8", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "5f00::1"),
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254"),
    *("64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:807f:fffe", "2001:db8::1"),
    *("", "localhost", "127.1", "2130706433", "0x7f.1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_of_the_public_internet_is_refused(address: str):
    assert not Networks().allow(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "140.82.121.3", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_public_is_allowed(address: str):
    assert Networks().allow(address)


@given(strategies.ip_addresses(v=4))
def test_an_address_within_another_is_judged_as_itself(address: ipaddress.IPv4Address):
    number = int(address)
    forms = [f"::ffff:{address}", str(ipaddress.IPv6Address((0x64FF9B << 96) | number))]
    forms.append(str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)))
    if not Networks().allow(str(address)):
        assert not any(map(Networks().allow, forms))


def test_networks_of_ones_own_are_named_and_no_others_come_with_them():
    networks = Networks("10.1.0.0/16, fd00::/8")
    assert networks.allow("10.1.2.3")
    assert networks.allow("::ffff:10.1.2.3")
    assert networks.allow("fd12::1")
    assert not networks.allow("10.2.0.1")
    assert not networks.allow("127.0.0.1")
    assert networks.allow("93.184.216.34")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "intranet", "10.0.0.0/33"])
def test_a_network_that_is_none_is_a_bad_setting(text: str):
    with pytest.raises(Refused) as caught:
        Networks(text)
    assert caught.value.code == "bad_setting"
