"""The broker keeps the contract, with TLS too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
import pytest

from pymicro.plugins import TLS, Build
from pymicro.registry import MemoryCatalog, MemoryRegistry
from pymicro_broker_http import HttpBrokerOptions
from pymicro_broker_http._broker import HttpBroker
from pymicro_testing import BrokerConformance
from pymicro_testing.faults import Outage, Server


class Authority(Protocol):
    """See conftest.py."""

    ca: str

    def issue(self, stem: str, *hosts: str) -> tuple[str, str]: ...


class Catalog(Server):
    """The registry's server: there is none between publishers and subscribers."""

    outages = frozenset({Outage.STOP})

    def __init__(self) -> None:
        self.catalog = MemoryCatalog()

    async def start(self) -> None:
        """Answer again."""
        self.catalog.available = True

    async def stop(self) -> None:
        """Answer nobody."""
        self.catalog.available = False


class TestHttpBroker(BrokerConformance):
    @pytest.fixture(autouse=True)
    async def registry(self) -> AsyncIterator[None]:
        self.server = server = Catalog()
        async with MemoryRegistry(catalog=server.catalog) as self._registry:
            yield

    def make(self, build: Build) -> HttpBroker:
        """A broker on the case's registry."""
        return HttpBroker(HttpBrokerOptions(discovery_time=0), build, registry=self._registry)


class TestHttpBrokerWithTls(TestHttpBroker):
    @pytest.fixture(autouse=True)
    def certificates(self, authority: Authority) -> None:
        cert, key = authority.issue("broker", "127.0.0.1")
        self.tls = TLS(cert=cert, key=key, ca=authority.ca)

    def make(self, build: Build) -> HttpBroker:
        """A broker with a certificate."""
        return super().make(msgspec.structs.replace(build, tls=self.tls))
