"""Who gets a message, what the publisher is told, and subscribers that are slow, silent, gone or of another kind."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import Counter
from typing import Any

import pytest

from pymicro.broker import Ack, Consumer
from pymicro.errors import BackendUnavailable, Closed, ConfigurationError, InvalidOption, TooLarge
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.plugins import Limits
from pymicro.record import Node, ServiceRecord
from pymicro_testing import no_leaks
from pymicro_testing.clock import ManualClock

PATIENCE = 5.0


async def publish(broker: Any, topic: str, body: bytes = b"{}", timeout: float = PATIENCE, **options: Any) -> None:
    headers = Headers({"Content-Type": "application/json"})
    async with asyncio.timeout(PATIENCE):
        await broker.publish(topic, Message(headers, body), timeout=timeout, **options)


async def next_of(consumer: Consumer) -> bytes:
    async with asyncio.timeout(PATIENCE):
        (delivery,) = await consumer.receive(1)
        await consumer.settle(delivery, Ack())
        return delivery.message.body


async def taken(queue: asyncio.Queue[Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await queue.get()


# what is sent


async def test_a_message_is_what_go_micro_sends(open_broker: Any, stranger: Any) -> None:
    go = await stranger("a topic")
    headers = Headers({"content-type": "application/json", "Micro-ID": "42", "X-Trace": "abc"})
    await (await open_broker()).publish("a topic", Message(headers, b"raw body"), timeout=PATIENCE)
    head, _, body = (await taken(go.got)).partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    assert line == f"POST /?id={go.node.id.replace(' ', '+')} HTTP/1.1"
    assert "Content-Type: application/json" in fields
    assert body == (
        b'{"Header":{"Content-Type":"application/json","Micro-ID":"42","Micro-Id":"42","Micro-Topic":"a topic",'
        b'"X-Trace":"abc"},"Body":"cmF3IGJvZHk="}'
    )


async def test_the_topic_is_filled_in_unless_the_message_names_one(open_broker: Any, stranger: Any) -> None:
    go, broker = await stranger("orders"), await open_broker()
    for headers, topic in (({}, "orders"), ({"micro-topic": "first.topic"}, "first.topic")):
        await broker.publish("orders", Message(Headers(headers)), timeout=PATIENCE)
        body = json.loads((await taken(go.got)).partition(b"\r\n\r\n")[2])
        assert body["Header"] == {"Micro-Topic": topic}


async def test_connections_are_kept(open_broker: Any, stranger: Any) -> None:
    go, broker = await stranger("orders"), await open_broker()
    for number in range(5):
        await publish(broker, "orders", str(number).encode())
    assert go.got.qsize() == 5
    assert go.connections == 1


# who gets it


async def test_nodes_of_others_at_the_same_service_are_passed_over(open_broker: Any, registry: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for metadata in ({"broker": "nats", "topic": "orders"}, {"broker": "http"}, {"broker": "http", "topic": "order"}):
        record = ServiceRecord("micro.http.broker", "q", nodes=(Node("x", f"127.0.0.1:{port}", metadata),))
        registration = await registry.register(record, ttl=60)
        await publish(await open_broker(), "orders")  # nobody is tried, so nobody fails
        await registration.aclose()


async def test_a_subscriber_that_registers_later_gets_the_next_message(open_broker: Any, stranger: Any) -> None:
    broker = await open_broker()
    await publish(broker, "orders", b"nobody")
    go = await stranger("orders")
    await asyncio.sleep(0)  # the watch's turn
    await publish(broker, "orders")
    assert go.got.qsize() == 1


async def test_one_of_a_queue_gets_it_whoever_they_are(open_broker: Any, stranger: Any) -> None:
    broker, other = await open_broker(), await open_broker()
    go = await stranger("orders", "packing")
    consumers = [await each.consume("orders", queue="packing", prefetch=100) for each in (broker, other)]
    for number in range(90):
        await publish(broker, "orders", str(number).encode())
    got = [go.got.qsize(), *[len(await consumer.receive(100)) for consumer in consumers]]
    assert sum(got) == 90
    assert min(got) > 5, "each gets about a third"


async def test_the_first_message_waits_for_all_subscribers_to_be_found(open_broker: Any, stranger: Any) -> None:
    clock = ManualClock()
    broker = await open_broker({"discovery_time": 0.5}, clock=clock)
    first = asyncio.create_task(publish(broker, "orders", b"first"))
    second = asyncio.create_task(publish(broker, "orders", b"second"))
    await clock.advance(0.4)
    late = await stranger("orders")
    await clock.advance(0.1)
    await asyncio.gather(first, second)
    assert late.got.qsize() == 2
    await publish(broker, "orders", b"third")  # by now, no time passes


async def test_messages_of_a_key_go_to_one_of_the_queue(open_broker: Any, stranger: Any) -> None:
    broker = await open_broker()
    members = [await stranger("orders", "packing") for _ in range(4)]
    names = ["Größe", *map(str, range(31))]  # so many that by chance, which is theirs, one member hardly has all
    for key in names:
        for _ in range(3):
            await publish(broker, "orders", key.encode(), key=key)
    keys: Counter[tuple[str, int]] = Counter()
    for number, member in enumerate(members):
        while not member.got.empty():
            body = json.loads(member.got.get_nowait().partition(b"\r\n\r\n")[2])
            keys[body["Header"]["Micro-Key"], number] += 1
    assert len(keys) == len(names)
    assert set(keys.values()) == {3}
    assert len({number for _, number in keys}) > 1


async def test_an_idle_subscriber_of_a_queue_comes_first(open_broker: Any) -> None:
    one, other, publisher = [await open_broker() for _ in range(3)]
    busy = await one.consume("orders", queue="packing", prefetch=1)
    await publish(publisher, "orders", b"held")
    await busy.receive(1)
    idle = await other.consume("orders", queue="packing", prefetch=8)
    for number in range(8):
        await publish(publisher, "orders", str(number).encode())
    assert len(await idle.receive(8)) == 8
    await publish(publisher, "orders", b"nobody is idle")
    # now it waits with either


# who cannot be reached


async def test_a_dead_subscriber_fails_and_holds_up_nobody(
    open_broker: Any, stranger: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker, dead = await open_broker(), await stranger("orders")
    alive = await (await open_broker()).consume("orders")
    await publish(broker, "orders", b"1")
    assert await next_of(alive) == b"1"
    await dead.die()
    with caplog.at_level(logging.INFO):
        for number in (b"2", b"3", b"4"):
            await publish(broker, "orders", number)
            assert await next_of(alive) == number
    assert [record.getMessage().split(" ")[:3] for record in caplog.records] == [["subscriber", "left", "out"]]


async def test_a_dead_subscriber_without_a_queue_is_no_error_even_alone(open_broker: Any, stranger: Any) -> None:
    broker, dead = await open_broker(), await stranger("orders")
    await dead.die()
    await publish(broker, "orders")


async def test_a_silent_subscriber_costs_one_publisher_its_time_out(open_broker: Any, stranger: Any) -> None:
    clock = ManualClock()
    broker, silent, well = await open_broker(clock=clock), await stranger("orders"), await stranger("orders")
    silent.silent.set()
    publishing = asyncio.create_task(publish(broker, "orders", b"1", timeout=0.3))
    await taken(well.got)  # at once
    await taken(silent.got)
    await publishing
    for _ in range(20):
        await publish(broker, "orders", b"2", timeout=60)
    assert silent.got.empty(), "it is left out"
    assert well.got.qsize() == 20
    silent.silent.clear()
    await clock.advance(1.1)
    await publish(broker, "orders", b"3")
    assert (await taken(silent.got)).endswith(b'"Mw=="}'), "it is tried again"


async def test_another_of_the_queue_is_tried(open_broker: Any, stranger: Any) -> None:
    broker = await open_broker()
    dead, alive = [await stranger("orders", "packing") for _ in range(2)]
    await publish(broker, "orders", b"both are there")
    await dead.die()
    got = alive.got.qsize()
    for _ in range(20):
        await publish(broker, "orders")
    assert alive.got.qsize() == got + 20


async def test_one_that_says_nothing_may_be_at_work_so_nobody_else_of_the_queue_is(
    open_broker: Any, stranger: Any
) -> None:
    broker = await open_broker()
    hanging, alive = [await stranger("orders", "packing") for _ in range(2)]
    hanging.silent.set()
    told: list[str] = []
    for _ in range(20):
        try:
            await publish(broker, "orders", timeout=0.3)
        except BackendUnavailable as error:
            told.append(str(error))
    assert all(f"{hanging.node.address}: no answer within" in text for text in told)
    assert hanging.got.qsize() == len(told) <= 1, "then it is left out"
    assert alive.got.qsize() == 20 - len(told)


async def test_one_that_does_not_even_connect_is_passed_over_in_time(
    open_broker: Any, registry: Any, stranger: Any
) -> None:
    broker = await open_broker()
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        host, port = full.getsockname()
        metadata = {"broker": "http", "secure": "false", "topic": "orders"}
        record = ServiceRecord("micro.http.broker", "packing", nodes=(Node("orders-x", f"{host}:{port}", metadata),))
        registration = await registry.register(record, ttl=60)
        fillers = [await asyncio.open_connection(host, port)]  # on Linux a queue of length 0 takes one
        alive = await stranger("orders", "packing")
        for number in range(10):
            await publish(broker, "orders", str(number).encode(), timeout=0.4)
        assert alive.got.qsize() == 10
        for _, writer in fillers:
            writer.close()
        await registration.aclose()


async def test_the_publisher_is_told_when_nobody_of_a_queue_takes_it(open_broker: Any, stranger: Any) -> None:
    broker, dead = await open_broker(), await stranger("orders", "packing")
    elsewhere = await stranger("orders", "billing")
    await dead.die()
    with pytest.raises(BackendUnavailable, match=rf"queue 'packing' .*{dead.node.address}: connection refused"):
        await publish(broker, "orders")
    assert elsewhere.got.qsize() == 1
    await dead.registration.aclose()
    await asyncio.sleep(0)
    await publish(broker, "orders")  # a queue that the registry does not know is none


async def test_a_subscriber_that_came_back_is_used_and_logged(
    open_broker: Any, stranger: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    broker, flaky = await open_broker(clock=clock), await stranger("orders")
    flaky.answer = None
    with caplog.at_level(logging.INFO):
        await publish(broker, "orders", b"1")
        flaky.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        await clock.advance(1.1)
        await publish(broker, "orders", b"2")
    lines = [record.getMessage().partition(" node=")[0] for record in caplog.records]
    assert lines == ["subscriber left out", "subscriber back"]


async def test_a_kept_connection_that_was_closed_is_no_fault(
    open_broker: Any, stranger: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker, go = await open_broker(), await stranger("orders", "packing")
    go.last = 1  # it closes when the next request comes
    with caplog.at_level(logging.INFO):
        await publish(broker, "orders", b"1")
        await publish(broker, "orders", b"2")
    assert caplog.records == []
    assert go.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nwho",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\0\1\2\3\r\n\r\n",
    ],
)
async def test_a_stranger_at_the_address_is_as_good_as_nobody(open_broker: Any, stranger: Any, answer: bytes) -> None:
    broker, other, alone = await open_broker(), await stranger("orders"), await stranger("letters", "typing")
    other.answer = alone.answer = answer
    await publish(broker, "orders")
    with pytest.raises(BackendUnavailable, match="queue 'typing'"):
        await publish(broker, "letters")


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:99999", "127.0.0.1:0", "[::1", "a b:1", "1.2.3.4:x"])
async def test_a_node_with_no_proper_address_is_left_out(open_broker: Any, registry: Any, address: str) -> None:
    node = Node("orders-1", address, {"broker": "http", "topic": "orders"})
    registration = await registry.register(ServiceRecord("micro.http.broker", "packing", nodes=(node,)), ttl=60)
    with pytest.raises(BackendUnavailable, match="queue 'packing'"):
        await publish(await open_broker(), "orders", timeout=1)
    await registration.aclose()


# who is there and does not take it


async def test_a_subscriber_without_room_makes_its_publisher_wait(open_broker: Any) -> None:
    subscriber, publisher = await open_broker({"max_messages": 2}), await open_broker()
    consumer = await subscriber.consume("orders")
    await publish(publisher, "orders", b"1")
    await publish(publisher, "orders", b"2")
    waiting = asyncio.create_task(publish(publisher, "orders", b"3"))
    (first,) = await consumer.receive(1)
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await consumer.settle(first, Ack())
    await waiting
    assert [await next_of(consumer), await next_of(consumer)] == [b"2", b"3"]


async def test_a_subscriber_that_gets_no_room_is_an_error_and_stays_in_use(open_broker: Any) -> None:
    subscriber, publisher = await open_broker({"max_messages": 1}, timeout=0.1), await open_broker()
    consumer = await subscriber.consume("orders")
    for broker in (publisher, subscriber):
        await publish(broker, "orders", b"1")
        with pytest.raises(BackendUnavailable, match="no room"):
            await publish(broker, "orders", b"2", timeout=0.4)
        assert await next_of(consumer) == b"1"
    await publish(publisher, "orders", b"3")
    assert await next_of(consumer) == b"3"


async def test_a_crowd_of_publishers_does_not_make_a_full_subscriber_a_dead_one(open_broker: Any) -> None:
    subscriber, publisher = await open_broker({"max_messages": 1}, timeout=0.4), await open_broker()
    consumer = await subscriber.consume("orders")
    await publish(publisher, "orders", b"1")
    crowd = (publish(publisher, "orders", b"2", timeout=1.0) for _ in range(200))  # most wait for a connection
    errors = await asyncio.gather(*crowd, return_exceptions=True)
    assert [type(error) for error in errors if not isinstance(error, BackendUnavailable)] == []
    assert any("no answer" in str(error) for error in errors)
    assert any("no room" in str(error) for error in errors)
    assert await next_of(consumer) == b"1"
    await publish(publisher, "orders", b"3")
    assert await next_of(consumer) == b"3"


async def test_a_message_over_the_limit_of_its_subscriber_is_told(open_broker: Any) -> None:
    publisher = await open_broker()
    consumer = await (await open_broker(limits=Limits(message=1000, headers=1000))).consume("orders")
    queued = await (await open_broker(limits=Limits(message=1000, headers=1000))).consume("letters", queue="typing")
    for topic in ("orders", "letters"):
        for message in (
            Message(Headers({}), b"x" * 1001),
            Message(Headers({"X": "x" * 1000})),
            Message(Headers(), b"x" * 10_000),
        ):
            with pytest.raises(TooLarge, match="over the limit"):
                await publisher.publish(topic, message, timeout=PATIENCE)
    await publish(publisher, "orders", b"x" * 1000)
    await publish(publisher, "letters", b"small")
    assert await next_of(consumer) == b"x" * 1000
    assert await next_of(queued) == b"small"


async def test_one_that_ended_its_subscription_is_passed_over(open_broker: Any, registry: Any) -> None:
    subscriber, publisher = await open_broker(), await open_broker()
    leaving = await subscriber.consume("orders", queue="packing")
    await publish(publisher, "orders", b"1")
    assert await next_of(leaving) == b"1"
    (record,) = await registry.get_service("micro.http.broker")
    ghost = await registry.register(record, ttl=60)  # the registry is behind the times
    await leaving.detach()
    staying = await (await open_broker()).consume("orders", queue="packing")
    for number in range(10):
        await publish(publisher, "orders", str(number).encode())
    assert [await next_of(staying) for _ in range(10)] == [str(number).encode() for number in range(10)]
    await staying.aclose()
    await publish(publisher, "orders")  # so nobody is subscribed, which is no error
    await ghost.aclose()


# the registry


async def test_an_outage_of_the_registry_leaves_what_was_known(open_broker: Any, catalog: Any) -> None:
    publisher, subscriber = await open_broker(), await open_broker()
    consumer = await subscriber.consume("orders")
    await publish(publisher, "orders", b"before")
    catalog.available = False
    assert not consumer.attached
    await asyncio.sleep(0)
    await publish(publisher, "orders", b"during")
    await publish(publisher, "another topic")
    catalog.available = True
    assert consumer.attached
    await publish(publisher, "orders", b"after")
    assert [await next_of(consumer) for _ in range(3)] == [b"before", b"during", b"after"]


async def test_a_registry_that_never_answered_is_an_error(open_broker: Any, catalog: Any) -> None:
    broker = await open_broker()
    catalog.available = False
    with pytest.raises(BackendUnavailable, match="nobody knows who is subscribed: the memory catalog"):
        await publish(broker, "orders")
    catalog.available = True
    await asyncio.sleep(0)  # the watch's turn
    await publish(broker, "orders")


# closing and cancelling


async def test_cancelled_publishing_leaves_nothing(open_broker: Any, stranger: Any) -> None:
    broker = await open_broker()
    for silent in (await stranger("orders"), await stranger("orders", "packing")):
        silent.silent.set()
    await publish(broker, "letters")
    async with no_leaks():
        publishing = asyncio.create_task(publish(broker, "orders"))
        await asyncio.sleep(0.05)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing


async def test_closing_ends_what_is_being_published(open_broker: Any, stranger: Any) -> None:
    broker, silent = await open_broker(), await stranger("orders", "packing")
    silent.silent.set()
    publishing = asyncio.create_task(publish(broker, "orders"))
    await taken(silent.got)
    await broker.aclose()
    with pytest.raises((Closed, BackendUnavailable)):
        await publishing


# what is refused


async def test_a_queue_cannot_be_called_as_if_it_were_none(open_broker: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"no queue can be called 'ff\.http\.broadcast'"):
        await (await open_broker()).consume("orders", queue="ff.http.broadcast")


async def test_a_topic_that_the_registry_cannot_hold_is_named(open_broker: Any, registry: Any) -> None:
    async def register(record: Any, *, ttl: float) -> Any:
        raise ConfigurationError(f"node {record.nodes[0].id!r}: a label of 80 bytes")

    broker = await open_broker()
    registry.register = register
    with pytest.raises(ConfigurationError, match=r"topic 'long' cannot be subscribed to .* a label of 80 bytes"):
        await broker.consume("long")


async def test_prefetch_is_at_least_one(open_broker: Any) -> None:
    with pytest.raises(InvalidOption, match="prefetch must be at least 1"):
        await (await open_broker()).consume("orders", prefetch=0)


async def test_it_listens_at_one_address(open_broker: Any) -> None:
    with pytest.raises(ConfigurationError, match="listens at one address"):
        await (await open_broker(addresses=("127.0.0.1:0", "127.0.0.1:0"))).consume("orders")


async def test_an_address_in_use_names_the_flag(open_broker: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match="in use: choose another with --broker_address"):
            await (await open_broker(addresses=(address,))).consume("orders")
