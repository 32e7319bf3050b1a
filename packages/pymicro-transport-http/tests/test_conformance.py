"""The HTTP transport keeps the contract."""

from __future__ import annotations

from pymicro.plugins import Build
from pymicro_testing import TransportConformance
from pymicro_transport_http._transport import HttpTransport


class TestHttpTransport(TransportConformance):
    tcp = True

    def make(self, build: Build) -> HttpTransport:
        return HttpTransport(None, build)
