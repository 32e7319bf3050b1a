"""Brokers on real servers, as services use them: two at once, with slow handlers, and with events that kill them."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pymicro import Service
from pymicro_broker_kafka import KafkaSubscription
from pymicro_broker_nats import NatsSubscription
from pymicro_broker_redis import RedisSubscription
from pymicro_testing import no_leaks
from pymicro_testing.servers import NativeServer

PATIENCE = 30.0

#: What a slow subscriber is sent, and by how many bytes it may grow meanwhile: what Kafka's driver fetches ahead, and
#: what it makes of them.
EVENTS = 480
SIZE = 64 * 1024
GROWTH = 18 * 1024 * 1024

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

logger = logging.getLogger(__name__)


class Broker(NamedTuple):
    """A broker that declares at-least-once.

    Attributes:
        server: of this name, and the plugin's.
        options: as keywords.
        queue: in which its dead letters are; empty for any.
        kept: asks for those that were there before.
    """

    server: str
    options: dict[str, Any]
    queue: str = ""
    kept: Any = None


BROKERS = {
    "redis": Broker("redis", {"broker_redis_claim_after": 2}, kept=RedisSubscription(start="kept")),
    "jetstream": Broker(
        "nats", {"broker_nats_jetstream": True, "broker_nats_ack_wait": 2}, kept=NatsSubscription(deliver="all")
    ),
    "rabbitmq": Broker("rabbitmq", {"broker_rabbitmq_durable": True}, queue="{topic}"),
    "kafka": Broker(
        "kafka",
        {"broker_kafka_session_timeout": 2, "broker_kafka_heartbeat": 0.2},
        kept=KafkaSubscription(start="kept"),
    ),
}


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    return BROKERS[request.param]


def keywords(broker: Broker, server: Callable[..., NativeServer]) -> dict[str, Any]:
    """The broker, for a service."""
    return {"broker": broker.server, "broker_address": server(broker.server).address, **broker.options}


@pytest.fixture
def options(broker: Broker, server: Callable[..., NativeServer]) -> dict[str, Any]:
    return keywords(broker, server)


def service(**options: Any) -> Service:
    """One of this process."""
    return Service("test", environ={}, registry="memory", transport="memory", **options)


def flags(options: dict[str, Any]) -> list[str]:
    """The same for a program."""
    return ["--registry=memory", "--drain_delay=0", *(f"--{name}={value}".lower() for name, value in options.items())]


def letters(service: Service, broker: Broker, topic: str) -> Any:
    """The dead letters of a topic, those that were there before, too."""
    topic = f"{topic}.dead"
    return service.subscription(topic, str, queue=broker.queue.format(topic=topic) or "clerk", native=broker.kept)


async def poison(broker: Broker, options: dict[str, Any], start: Any, name: str) -> None:
    """Publish an event that kills two workers and fails in three, and find it among the dead letters."""
    topic = f"{name}.poison"
    deliveries: list[str] = []
    async with service(**options) as test:
        worker = await start("poisoned.py", *flags(options))
        await worker.says("service started")
        await test.publish(topic, "poison", key="k", metadata={"Shop": "north", "Traceparent": TRACE})
        for count in (2, 4):
            await worker.says(f"delivery {count}")
            successor = await start("poisoned.py", *flags(options))
            # NATS 2.9 loses count of a message whose lease ends while nobody asks for any.
            await successor.says("service started")
            await worker.kill()
            deliveries += worker.printed
            worker = successor
        try:
            await worker.says("delivery 5")
        except TimeoutError:
            raise AssertionError("\n".join([broker.server, *deliveries, *worker.printed, *worker.log])) from None
        async with letters(test, broker, topic) as dead:
            letter = await anext(dead)
            headers = letter.message.headers
            assert (letter.value, letter.key) == ("poison", "k")
            assert (headers["Shop"], headers["Traceparent"]) == ("north", TRACE)
            assert headers["Micro-Dead-Topic"] == topic
            assert headers["Micro-Dead-Reason"] == "RuntimeError: it cannot be done"
            assert headers["Micro-Dead-Count"] == "5"
            await test.publish(f"{topic}.dead", "the next", key="k")
            assert (await anext(dead)).value == "the next"
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0, "\n".join(worker.log)
    assert deliveries + worker.printed == [f"delivery {count}" for count in (1, 2, 3, 4, 5)]


async def test_a_poisonous_event_is_delivered_as_often_as_the_policy_says_though_it_kills(
    server: Callable[..., NativeServer], start: Any, name: str
) -> None:
    """On all brokers at once, since most of it is waiting for the leases of the dead."""
    options = [(broker, keywords(broker, server)) for broker in BROKERS.values()]
    async with no_leaks(), asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for broker, own in options:
            group.create_task(poison(broker, own, start, name))


async def test_a_slow_subscriber_holds_little_and_loses_nothing(options: dict[str, Any], start: Any, name: str) -> None:
    async with no_leaks(), asyncio.timeout(PATIENCE), service(**options) as test:
        exact = {"MALLOC_MMAP_THRESHOLD_": "16384"}  # what is freed goes back to the system
        worker = await start("slow.py", *flags(options), EVENTS=str(EVENTS), **exact)
        await worker.says("service started")
        began = time.monotonic()
        numbers = iter(range(EVENTS))

        async def publish() -> None:
            for number in numbers:
                await test.publish(f"{name}.work", f"{number}".ljust(SIZE, "."), timeout=PATIENCE)

        async with asyncio.TaskGroup() as publishers:
            for _ in range(16):
                publishers.create_task(publish())
        published = time.monotonic() - began
        growth = int((await worker.says("all done")).rpartition(" ")[2])
        handled = time.monotonic() - began
        logger.info(
            "%s: published in %.2f s, handled in %.2f s, %.1f MiB more",
            options["broker"],
            published,
            handled,
            growth / 2**20,
        )
        assert growth < GROWTH
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0, "\n".join(worker.log)


PAIRS = list(zip(BROKERS, [*BROKERS][1:] + [*BROKERS][:1], strict=True))


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
async def test_one_service_has_two_brokers(
    first: str, second: str, server: Callable[..., NativeServer], start: Any, name: str
) -> None:
    """The program by flags, this process by keywords."""
    orders, alerts = BROKERS[first], BROKERS[second]
    addresses = {"": server(orders.server).address, "alerts": server(alerts.server).address}
    own = orders.options | alerts.options
    brokers = {"broker": orders.server, "brokers": {"alerts": alerts.server}}
    heard: asyncio.Queue[str] = asyncio.Queue()
    test = service(broker_address=addresses, **brokers, **own)

    async def hear(alert: str) -> None:
        heard.put_nowait(alert)

    test.subscribe(f"{name}.alerts", hear, broker="alerts")
    async with no_leaks(), asyncio.timeout(PATIENCE), test:
        relay = await start(
            "relay.py",
            f"--broker={orders.server}",
            f"--broker=alerts:{alerts.server}",
            f"--broker_address={addresses['']}",
            f"--broker_address=alerts={addresses['alerts']}",
            *flags(own),
        )
        await relay.says("service started")
        for order in ("one", "bad", "other"):
            await test.publish(f"{name}.orders", order)
        assert {await heard.get() for _ in range(2)} == {"alert of one", "alert of other"}
        async with letters(test, orders, f"{name}.orders") as dead:
            letter = await anext(dead)
            assert letter.value == "bad"
            assert letter.message.headers["Micro-Dead-Reason"].endswith("nobody can make sense of it")
        relay.signal(signal.SIGTERM)
        assert await relay.ended() == 0, "\n".join(relay.log)
    assert heard.empty()
