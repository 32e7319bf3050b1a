"""Which interfaces are used."""

from __future__ import annotations

import pytest

from pymicro_registry_mdns._interfaces import Interface, select, usable

LO_4, LO_6 = Interface("lo", 1, "127.0.0.1"), Interface("lo", 1, "::1")
ETH_4, ETH_4B = Interface("eth0", 2, "192.0.2.2"), Interface("eth0", 2, "192.0.2.3")
ETH_6, ETH_6L = Interface("eth0", 2, "2001:db8::2"), Interface("eth0", 2, "fe80::2")
PORT_6L = Interface("veth1", 3, "fe80::3")
ONLY_6 = Interface("eth1", 4, "2001:db8::4")
ALL = (LO_4, LO_6, ETH_4, ETH_4B, ETH_6, ETH_6L, PORT_6L, ONLY_6)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ((), [LO_4, ETH_4, ETH_6, ONLY_6]),
        (("eth0",), [ETH_4, ETH_6]),
        (("192.0.2.3",), [ETH_4B]),
        (("::1", "veth1"), [LO_6, PORT_6L]),
        (("eth9",), []),
    ],
)
def test_one_address_of_each_family_is_used(wanted: tuple[str, ...], chosen: list[Interface]) -> None:
    assert select(ALL, wanted) == chosen


def test_loopback_without_ipv4_uses_ipv6() -> None:
    assert select([LO_6], ()) == [LO_6]


def test_loopback_can_do_multicast() -> None:
    assert [interface.address for interface in usable(["127.0.0.1"])] == ["127.0.0.1"]
