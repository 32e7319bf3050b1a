"""Real servers for tests: started as processes on loopback, with free ports and throw-away data.

In a test, ask for one by fixture. It is started when the first test of the session asks for it, and is up when a test
begins, even if the one before left it down. A server that is not installed skips the test and says how to get it;
where `CI` is set the test fails instead. All packages that are tested in one run share them, so a test takes names
that no other has. RabbitMQ, Kafka and Consul, which take most of the memory, end when the next test is of another
folder, and start anew if that one asks for them: all servers together take about 550 MB, those that stay 30 MB.

| fixture | gives |
| --- | --- |
| `etcd_server`, `consul_server` | an `EtcdServer`, a `ConsulServer` |
| `nats_server`, `redis_server` | a `NatsServer` with JetStream, a `RedisServer` that keeps an append-only file |
| `rabbitmq_server`, `kafka_server` | a `RabbitmqServer`, a `KafkaServer` |
| `server` | `server("redis", ...)`: any of them, made as asked for; equal requests share one server for the session |

    async def test_it_comes_back(redis_server):
        redis_server.address                  # "127.0.0.1:23456", the same through all that follows
        await redis_server.kill()             # -9; `stop` is the same: the outage of the conformance cases
        await redis_server.start()            # the same port, the same data; returns when it answers
        await redis_server.restart()          # both
        await redis_server.terminate()        # an orderly end, as by an administrator
        await redis_server.pause()            # SIGSTOP: it accepts connections and answers nothing
        await redis_server.resume()           # SIGCONT; `start` does it too
        await redis_server.forget()           # killed, its data deleted, started again

    async def test_it_asks_who_is_there(server):
        redis = server("redis", tls=True, credentials=True)
        redis.certificates.authority, redis.certificates.certificate, redis.certificates.key   # PEM files of a client
        redis.username, redis.password
        second = server("redis", number=2)                          # one more, for fail-over
        small = server("redis", settings={"maxmemory": "2mb"})      # what its configuration says besides

With `tls=True` the server answers to `localhost` and `127.0.0.1` over TLS only, and refuses clients that show no
certificate of its authority. With `credentials=True` it refuses who does not give user and password; the password
has characters that must be quoted in an address. (Consul: `password` is a token, `username` is empty. RabbitMQ always
has them: `guest` and `guest`, if not asked for others.)

Each is a `pymicro_testing.Server` that can stop, pause and forget, so conformance cases use it as their `server`:

    class TestRedisBroker(BrokerConformance):
        @pytest.fixture(autouse=True)
        def backend(self, redis_server: RedisServer) -> None:
            self.server = redis_server

By hand: `python -m pymicro_testing.servers redis nats` starts these, prints their addresses, and ends them with
Ctrl-C; it knows `--tls` and `--credentials`, and `--install`, which gets what no package manager has. The names are
those of the services in `docker-compose.yml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymicro_testing.servers._certificates import Certificates
from pymicro_testing.servers._consul import ConsulServer
from pymicro_testing.servers._etcd import EtcdServer
from pymicro_testing.servers._kafka import KafkaServer
from pymicro_testing.servers._native import MissingServerError, NativeServer, ServerFailedError
from pymicro_testing.servers._nats import NatsServer
from pymicro_testing.servers._rabbitmq import RabbitmqServer
from pymicro_testing.servers._redis import RedisServer

SERVERS: Final[Mapping[str, type[NativeServer]]] = {
    kind.name: kind for kind in (ConsulServer, EtcdServer, KafkaServer, NatsServer, RabbitmqServer, RedisServer)
}
"""Every server by its name."""

__all__ = [
    "SERVERS",
    "Certificates",
    "ConsulServer",
    "EtcdServer",
    "KafkaServer",
    "MissingServerError",
    "NativeServer",
    "NatsServer",
    "RabbitmqServer",
    "RedisServer",
    "ServerFailedError",
]
