"""Certificates for servers and their clients, of an authority made for the test."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Certificates:
    """An authority, a server and a client that it certified; all files are PEM.

    Attributes:
        authority: the certificate by which both sides check each other.
        certificate: that of the client.
        key: that of the client.
        server_certificate: that of the server, for `localhost` and `127.0.0.1`.
        server_key: that of the server.
    """

    authority: Path
    certificate: Path
    key: Path
    server_certificate: Path
    server_key: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """A new authority with its server and client, in this folder. Needs the extra `tls`."""
        from pymicro_testing.certificates import Authority

        authority = Authority(folder, "authority")
        files = (authority.ca, *authority.issue("client"), *authority.issue("server", "localhost", "127.0.0.1"))
        return cls(*map(Path, files))

    def client_context(self) -> ssl.SSLContext:
        """What a client connects with that the server accepts."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context
