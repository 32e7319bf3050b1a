"""The part of the pytest plugin that starts servers; what it gives is described in `pymicro_testing.servers`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from pymicro_testing.servers import (
        ConsulServer,
        EtcdServer,
        KafkaServer,
        NativeServer,
        NatsServer,
        RabbitmqServer,
        RedisServer,
    )
    from pymicro_testing.servers._session import Session


_SESSION = pytest.StashKey["Session"]()


@pytest.fixture(scope="session")
def _pymicro_servers(pytestconfig: pytest.Config) -> Iterator[Session]:
    from pymicro_testing.servers._session import Session

    with Session() as session:
        pytestconfig.stash[_SESSION] = session
        yield session


@pytest.hookimpl(trylast=True)  # after the fixtures of the test
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End large servers when the tests of a folder are done: no test says beforehand which ones it asks for."""
    session = item.config.stash.get(_SESSION, None)
    if session is not None and nextitem is not None and nextitem.path.parent != item.path.parent:
        session.end_large()


@pytest.fixture
def _pymicro_server(_pymicro_servers: Session) -> Callable[..., NativeServer]:
    # The fixtures below ask for this one, since users may well have a fixture `server` of their own.
    from pymicro_testing.servers import MissingServerError

    def get(name: str, **asked: Any) -> NativeServer:
        try:
            return _pymicro_servers.get(name, **asked)
        except MissingServerError as missing:
            reason = str(missing)
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return get


@pytest.fixture
def server(_pymicro_server: Callable[..., NativeServer]) -> Callable[..., NativeServer]:
    """`server("redis", number=1, tls=False, credentials=False, settings=None)`: a server that answers.

    Equal arguments give the same server, which lives as long as the session, and a large one as long as the tests of
    a folder; if an earlier test left it down, it is brought back first.
    """
    return _pymicro_server


@pytest.fixture
def etcd_server(_pymicro_server: Callable[..., NativeServer]) -> EtcdServer:
    """An etcd, without TLS and credentials."""
    return cast("EtcdServer", _pymicro_server("etcd"))


@pytest.fixture
def nats_server(_pymicro_server: Callable[..., NativeServer]) -> NatsServer:
    """A NATS with JetStream, without TLS and credentials."""
    return cast("NatsServer", _pymicro_server("nats"))


@pytest.fixture
def redis_server(_pymicro_server: Callable[..., NativeServer]) -> RedisServer:
    """A Redis with an append-only file, without TLS and credentials."""
    return cast("RedisServer", _pymicro_server("redis"))


@pytest.fixture
def rabbitmq_server(_pymicro_server: Callable[..., NativeServer]) -> RabbitmqServer:
    """A RabbitMQ with the user that it has by itself, `guest`, and without TLS."""
    return cast("RabbitmqServer", _pymicro_server("rabbitmq"))


@pytest.fixture
def consul_server(_pymicro_server: Callable[..., NativeServer]) -> ConsulServer:
    """A Consul, without TLS and tokens."""
    return cast("ConsulServer", _pymicro_server("consul"))


@pytest.fixture
def kafka_server(_pymicro_server: Callable[..., NativeServer]) -> KafkaServer:
    """A Kafka, without TLS and credentials."""
    return cast("KafkaServer", _pymicro_server("kafka"))
