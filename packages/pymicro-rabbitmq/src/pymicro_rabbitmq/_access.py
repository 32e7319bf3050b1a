"""Where the servers of a component are, and how they are spoken to."""

from __future__ import annotations

import ssl

from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext
from pymicro_rabbitmq._address import servers
from pymicro_rabbitmq._link import Link
from pymicro_rabbitmq._options import RabbitmqOptions


class Access:
    """The servers of one component. Each link that it gives is a connection to one of them.

    Args:
        kind: of the component, such as `broker`, for errors.
        options: log-in and times.
        build: addresses, TLS, clock, logger, who this process is.

    Raises:
        ConfigurationError: an address has no form that is known.
    """

    def __init__(self, kind: str, options: RabbitmqOptions, build: Build) -> None:
        self._options = options
        self._build = build
        self._servers = servers(kind, build.addresses, options, tls=build.tls.enabled)
        self._tls: TLSContext | None = None

    def open(self) -> None:
        """Read the TLS files. Connections are made when they are needed.

        Raises:
            ConfigurationError: a file is missing, or is not what it should be.
        """
        if any(server.tls for server in self._servers):
            self._tls = TLSContext(self._build.tls, "client", clock=self._build.clock, logger=self._build.logger)

    def link(self, purpose: str) -> Link:
        """A connection; `purpose` is what the server shows it as."""
        return Link(self._servers, self._context, self._options, self._build, purpose)

    def _context(self) -> ssl.SSLContext | None:
        return self._tls.get() if self._tls is not None else None
