"""Addresses: taken apart, put together, and the one that others are told."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from pymicro.errors import ConfigurationError
from pymicro.plugins.toolkit import _address, advertised, join_address, server_address, split_address


def machine(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let this machine have these addresses and no others."""
    found = [ipaddress.ip_address(address) for address in addresses]

    def own(family: socket.AddressFamily) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        return [ip for ip in found if (ip.version == 6) == (family == socket.AF_INET6)]

    monkeypatch.setattr(_address, "_own_addresses", own)


class TestSplit:
    @pytest.mark.parametrize(
        ("address", "host", "ports"),
        [
            ("", "", range(1)),
            (":0", "", range(1)),
            (":8080", "", range(8080, 8081)),
            ("host:80", "host", range(80, 81)),
            ("host:8000-8010", "host", range(8000, 8011)),
            ("host:80-80", "host", range(80, 81)),
            ("[::1]:80", "::1", range(80, 81)),
            ("0.0.0.0:65535", "0.0.0.0", range(65535, 65536)),
        ],
    )
    def test_what_is_an_address(self, address: str, host: str, ports: range) -> None:
        assert split_address(address) == (host, ports)

    @pytest.mark.parametrize(
        ("address", "problem"),
        [
            ("host", "has no port"),
            ("[::1]", "has no port"),
            ("::1:80", "needs brackets"),
            ("host:", "'' is no port"),
            ("host:http", "'http' is no port"),
            ("host:65536", "'65536' is no port"),
            ("host:-1", "'' is no port"),
            ("host:+80", "is no port"),
            ("host:\u0664", "is no port"),
            ("host:9-8", "ends before it begins"),
        ],
    )
    def test_what_is_none_is_explained(self, address: str, problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem):
            split_address(address)

    def test_joining_undoes_splitting(self) -> None:
        for address in ("host:80", "127.0.0.1:1", "[::1]:80"):
            host, ports = split_address(address)
            assert join_address(host, ports[0]) == address


class TestAdvertised:
    @pytest.mark.parametrize("address", ["10.1.2.3:80", "host:80", "[fe80::1]:80", "memory:1", "subject.with.dots", ""])
    def test_what_is_no_wildcard_stays(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        machine(monkeypatch, "10.9.9.9")
        if address:
            assert advertised(address) == address

    @pytest.mark.parametrize("address", [":80", "0.0.0.0:80", "*:80"])
    def test_a_wildcard_becomes_the_first_private_address(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        machine(monkeypatch, "127.0.0.1", "169.254.1.1", "203.0.113.5", "192.168.7.7", "10.0.0.1")
        assert advertised(address) == "192.168.7.7:80"

    def test_else_a_public_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine(monkeypatch, "127.0.0.1", "169.254.1.1", "203.0.113.5")
        assert advertised("0.0.0.0:80") == "203.0.113.5:80"

    def test_else_loopback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine(monkeypatch)
        assert advertised("0.0.0.0:80") == "127.0.0.1:80"
        assert advertised("[::]:80") == "[::1]:80"

    def test_an_ipv6_wildcard_becomes_an_ipv6_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine(monkeypatch, "10.0.0.1", "fe80::1", "2001:db8::5", "fd00::5")
        assert advertised("[::]:80") == "[fd00::5]:80"

    @pytest.mark.parametrize(
        ("advertise", "told"),
        [
            (None, "10.0.0.1:80"),
            ("", "10.0.0.1:80"),
            ("service.example", "service.example:80"),
            ("service.example:9", "service.example:9"),
            ("::1", "[::1]:80"),
            ("[::1]", "[::1]:80"),
            ("[::1]:9", "[::1]:9"),
            (":9", "10.0.0.1:9"),
            ("0.0.0.0", "10.0.0.1:80"),
        ],
    )
    def test_the_users_word_comes_first(
        self, monkeypatch: pytest.MonkeyPatch, advertise: str | None, told: str
    ) -> None:
        machine(monkeypatch, "10.0.0.1")
        assert advertised("0.0.0.0:80", advertise) == told

    def test_on_this_machine_it_is_an_address_one_can_bind(self) -> None:
        host, ports = split_address(advertised("0.0.0.0:80"))
        assert ports == range(80, 81)
        with socket.socket() as probe:
            probe.bind((host, 0))


class TestServer:
    @pytest.mark.parametrize(
        ("address", "host", "port"),
        [
            ("10.0.0.1:1234", "10.0.0.1", 1234),
            ("10.0.0.1", "10.0.0.1", 2379),
            ("etcd.example", "etcd.example", 2379),
            ("[::1]:1234", "::1", 1234),
            ("[::1]", "::1", 2379),
        ],
    )
    def test_the_port_may_lack(self, address: str, host: str, port: int) -> None:
        assert server_address(address, 2379, "etcd") == (host, port)

    @pytest.mark.parametrize("address", ["", ":2379", "a:b", "::1", "http://etcd:2379", "etcd:1-3"])
    def test_other_forms_are_refused(self, address: str) -> None:
        with pytest.raises(ConfigurationError):
            server_address(address, 2379, "etcd")

    def test_the_error_says_whose_address_it_is(self) -> None:
        with pytest.raises(ConfigurationError, match="etcd address 'http://etcd'"):
            server_address("http://etcd", 2379, "etcd")
