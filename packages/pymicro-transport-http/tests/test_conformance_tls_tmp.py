from __future__ import annotations
import msgspec, pytest
from pymicro.plugins import Build, TLS
from pymicro_testing import TransportConformance
from pymicro_transport_http._transport import HttpTransport


class TestHttpTransportTls(TransportConformance):
    tcp = True

    @pytest.fixture(autouse=True)
    def certs(self, authority):
        cert, key = authority.issue("server", "127.0.0.1")
        self.tls = TLS(cert=cert, key=key, ca=authority.ca)

    def make(self, build: Build) -> HttpTransport:
        return HttpTransport(None, msgspec.structs.replace(build, tls=self.tls))
