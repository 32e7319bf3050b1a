"""Where the servers are and how to log in: what all clients of the driver in this broker are made with."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, connection_problem, join_address, split_address
from pymicro_broker_kafka._driver import KafkaNetClient, KafkaNetSocket
from pymicro_broker_kafka._driver import errors as driver
from pymicro_broker_kafka._errors import is_refusal
from pymicro_broker_kafka._options import KafkaBrokerOptions

_DEFAULT: Final = ("127.0.0.1:9092",)
_PORT: Final = 9092
_REST: Final = 50  # milliseconds before a failed connection or request is tried again, at first
_CUTS: Final = 2  # times that a server ends the connection at log-in, until it is taken for an answer
_LONGEST_REST: Final = 500
_METADATA: Final = 30_000  # milliseconds after which a client asks again which partitions there are


def addresses_of(texts: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Hosts and ports of `host` or `host:port`.

    Raises:
        ConfigurationError: an address has another form.
    """
    return tuple(_address(text) for text in texts or _DEFAULT)


def _address(text: str) -> tuple[str, int]:
    has_port = text.rpartition(":")[1] and not text.endswith("]")
    host, ports = split_address(text if has_port else f"{text}:{_PORT}")
    if not host or "/" in host or len(ports) != 1 or not ports[0]:
        raise ConfigurationError(f"broker address {text!r}: write host:port")
    return host, ports[0]


class Settings:
    """How to reach the servers.

    Args:
        options: log-in and times.
        build: addresses, TLS files, time-out.
    """

    def __init__(self, options: KafkaBrokerOptions, build: Build) -> None:
        self.options = options
        self.build = build
        self.servers = addresses_of(build.addresses)
        self.tls: TLSContext | None = None

    @property
    def address(self) -> str:
        """For people."""
        return ",".join(join_address(*server) for server in self.servers)

    @property
    def patience(self) -> int:
        """Milliseconds for one answer."""
        return _ms(self.build.timeout)

    def read_tls(self) -> None:
        """Read the TLS files.

        Raises:
            ConfigurationError: one is missing, or is not what it should be.
        """
        if self.build.tls.enabled:
            self.tls = TLSContext(self.build.tls, "client", clock=self.build.clock, logger=self.build.logger)
        for name in ("kafka", "kafka.coordinator.heartbeat"):
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs each attempt to connect

    def driver(self) -> dict[str, Any]:
        """What each client of the driver is made with."""
        options = self.options
        login: dict[str, Any] = {}
        if options.username:
            login = {
                "sasl_mechanism": options.sasl_mechanism.upper(),
                "sasl_plain_username": options.username,
                "sasl_plain_password": options.password,
            }
        protocol = ("SASL_" if login else "") + ("SSL" if self.tls is not None else "PLAINTEXT")
        return {
            "bootstrap_servers": [join_address(*server) for server in self.servers],
            "bootstrap_timeout_ms": _ms(options.connect_timeout),
            "client_id": self.build.identity.node_id,
            "request_timeout_ms": _ms(max(1.0, self.build.timeout)),
            "reconnect_backoff_ms": _REST,
            "reconnect_backoff_max_ms": _LONGEST_REST,
            "retry_backoff_ms": _REST,
            "metadata_max_age_ms": _METADATA,
            "security_protocol": protocol,
            "proxy_url": f"{_ClosingSocket.SCHEMES[0]}://",
            "ssl_context": _Latest(self.tls) if self.tls is not None else None,
            **login,
        }

    async def probe(self) -> None:
        """Find out whether a server is there: the driver itself would try for long, and not say what is wrong.

        Raises:
            BackendUnavailable: none is; each address is named with its reason.
            BackendRefused: none is, and waiting does not help: a certificate is not trusted.
        """
        problems, refused = [], True
        for host, port in self.servers:
            try:
                async with asyncio.timeout(self.options.connect_timeout):
                    context = self.tls.get() if self.tls is not None else None
                    _, writer = await asyncio.open_connection(host, port, ssl=context)
            except OSError as error:  # TimeoutError is one
                late = isinstance(error, TimeoutError)
                problems.append(f"{join_address(host, port)}: {'no answer' if late else connection_problem(error)}")
                refused = refused and isinstance(error, ssl.SSLCertVerificationError)
                continue
            writer.transport.abort()
            return
        kind = BackendRefused if refused else BackendUnavailable
        raise kind("no server can be reached: " + "; ".join(problems))


class _ClosingSocket(KafkaNetSocket):  # type: ignore[misc]  # the driver has no types
    """No proxy at all: the driver's own sockets, but for that it forgets to close those that do not get through."""

    SCHEMES = ("pymicro-direct",)

    async def sock_connect(self, net: Any, sock: Any, address: Any, timeout_at: float | None = None) -> Any:
        try:
            return await super().sock_connect(net, sock, address, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


class _ClosingTLS(ssl.SSLSocket):
    """The same for those that are refused in the handshake."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except BaseException:
            self.close()
            raise


class _Latest:
    """A TLS context for the driver, which asks each time for the one that the files say now."""

    def __init__(self, tls: TLSContext) -> None:
        self._tls = tls

    def wrap_socket(self, *args: Any, **how: Any) -> ssl.SSLSocket:
        context = self._tls.get()
        context.sslsocket_class = _ClosingTLS
        return context.wrap_socket(*args, **how)


class Net:
    """Makes a client of the driver, and knows its connections.

    The driver's constructors leave a thread and sockets behind when they fail; this closes them.

    Args:
        settings: what it is made with.
        client: makes the driver's own client, which it shares with nobody.
    """

    def __init__(self, settings: Settings, client: Callable[..., Any] = KafkaNetClient) -> None:
        self._settings = settings
        self._new = client
        self._made: Any = None
        self._refusal: Exception | None = None
        self._cut = 0

    def make(self, kind: Any, **config: Any) -> Any:
        """A client of this kind. Blocks, at most for the time to connect.

        Raises:
            kafka.errors.KafkaError: no server answers, or it refuses.
        """
        self._refusal, self._cut = None, 0
        try:
            return kind(kafka_client=self._client, **{**self._settings.driver(), **config})
        except Exception as error:
            if self._made is not None:
                with suppress(Exception):
                    self._made.close()
            raise self._why(error) from error

    def _why(self, error: Exception) -> Exception:
        return self._refusal or error

    def _client(self, **config: Any) -> Any:
        self._made = self._new(**config)
        # The driver's own option for it does not get here; what servers make by themselves has their partitions.
        self.cluster.config["allow_auto_create_topics"] = False
        # The driver goes on with wrong credentials until its time is over, and then says that time was over.
        manager = self._made._manager
        connect = manager.get_connection

        def get_connection(*args: Any, **how: Any) -> Any:
            connection = connect(*args, **how)
            connection.init_future.add_errback(lambda error: self._failed(connection, error))
            return connection

        manager.get_connection = get_connection
        return self._made

    def _failed(self, connection: Any, error: Exception) -> None:
        if is_refusal(error):
            self._refusal = error
        elif self._settings.options.username and connection.broker_version_data is not None:
            # Servers close the connection with their answer, which the driver then overlooks.
            self._cut += 1
            if self._cut >= _CUTS:
                self._refusal = driver.SaslAuthenticationFailedError("the server ended the connection at log-in")

    @property
    def cluster(self) -> Any:
        """What the client knows of topics and servers."""
        return self._made.cluster

    @property
    def connected(self) -> bool:
        """Whether a server of the cluster is connected."""
        return any(self._made.connected(node.node_id) for node in self.cluster.brokers())


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
