"""The HTTP transport keeps the contract, with TLS too."""

from __future__ import annotations

from typing import Protocol

import msgspec
import pytest

from pymicro.plugins import TLS, Build
from pymicro.record import Node
from pymicro_testing import TransportConformance
from pymicro_transport_http._transport import HttpTransport


class Authority(Protocol):
    """See conftest.py."""

    ca: str

    def issue(self, stem: str, *hosts: str) -> tuple[str, str]: ...


class TestHttpTransport(TransportConformance):
    tcp = True

    def make(self, build: Build) -> HttpTransport:
        return HttpTransport(None, build)


class TestChannels(TransportConformance):
    tcp = True

    def make(self, build: Build) -> HttpTransport:
        return HttpTransport(None, build)

    def node(self, address: str) -> Node:
        return Node("conformance-1", address, {"protocol": "mucp", "channels": "1"})


class TestHttpTransportWithTls(TransportConformance):
    tcp = True

    @pytest.fixture(autouse=True)
    def certificates(self, authority: Authority) -> None:
        cert, key = authority.issue("server", "127.0.0.1")
        self.tls = TLS(cert=cert, key=key, ca=authority.ca)

    def make(self, build: Build) -> HttpTransport:
        return HttpTransport(None, msgspec.structs.replace(build, tls=self.tls))


class TestChannelsWithTls(TestHttpTransportWithTls):
    def node(self, address: str) -> Node:
        return Node("conformance-1", address, {"protocol": "mucp", "channels": "1"})
