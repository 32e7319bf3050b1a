"""What a link says, and what it leaves to others."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any
from urllib.parse import quote

import aiormq
import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, Closed
from pymicro.plugins import TLS, Build
from pymicro_rabbitmq import RabbitmqOptions
from pymicro_rabbitmq.connection import Access, Link, close_channel, mapping
from pymicro_testing.faults import FaultProxy
from pymicro_testing.servers import RabbitmqServer

PATIENCE = 10.0


def link_to(*addresses: str, tls: TLS | None = None, **options: Any) -> Link:
    build = Build(addresses=addresses, tls=tls or TLS())
    access = Access("broker", RabbitmqOptions(**{"reconnect_interval": 0.05, **options}), build)
    access.open()
    return access.link("testing")


async def works(link: Link) -> None:
    async with asyncio.timeout(PATIENCE):
        channel = await (await link.connection()).channel()
        await channel.exchange_declare("amq.topic", passive=True)
        await link.aclose()


async def refused(link: Link, kind: type[Exception], match: str) -> None:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(kind, match=match):
            await link.connection(patient=False)
        await link.aclose()


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


async def test_a_connection_is_made_when_it_is_first_asked_for(rabbitmq_server: RabbitmqServer) -> None:
    link = link_to(rabbitmq_server.address)
    assert not link.connected
    async with asyncio.timeout(PATIENCE):
        assert await link.connection() is await link.connection()
        assert link.connected
        await link.aclose()
    assert not link.connected
    with pytest.raises(Closed):
        await link.connection()


async def test_an_outage_is_logged_once_and_the_driver_adds_nothing(
    nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    link = link_to(nowhere)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match=nowhere):
                await link.connection(patient=False)
        await link.aclose()
    assert [record.name for record in caplog.records] == ["pymicro"]


async def test_what_the_driver_says_of_connections_of_others_is_heard(
    nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    link = link_to(nowhere)
    with caplog.at_level(logging.INFO):
        with pytest.raises(BackendUnavailable):
            await link.connection(patient=False)
        with pytest.raises(OSError):  # noqa: PT011  # the driver's own, which has no one text
            await aiormq.connect(f"amqp://guest:guest@{nowhere}/")
        await link.aclose()
    assert [record.name for record in caplog.records] == ["pymicro", "aiormq.connection"]


async def test_nothing_is_filtered_when_no_link_runs(nowhere: str) -> None:
    loggers = [logging.getLogger(name) for name in ("aiormq.connection", "aiormq.channel")]
    before = [[*logger.filters] for logger in loggers]
    first, second = link_to(nowhere), link_to(nowhere)
    for link in (first, second):
        with pytest.raises(BackendUnavailable):
            await link.connection(patient=False)
    for link in (first, second):
        assert [logger.filters for logger in loggers] != before
        await link.aclose()
    assert [logger.filters for logger in loggers] == before
    assert [logger.level for logger in loggers] == [logging.NOTSET] * 2


async def test_a_call_that_is_cancelled_is_not_logged_by_the_driver(
    rabbitmq_server: RabbitmqServer, caplog: pytest.LogCaptureFixture
) -> None:
    link = link_to(rabbitmq_server.address)
    async with asyncio.timeout(PATIENCE):
        connection = await link.connection()
        channel = await connection.channel()
        asking = asyncio.create_task(channel.queue_declare("", exclusive=True))
        for _ in range(3):
            await asyncio.sleep(0)
        asking.cancel()  # now that it waits for the answer
        await asyncio.wait([asking])
        assert asking.cancelled()
        await close_channel(channel)
        await link.aclose()
    assert not caplog.records


async def test_the_next_address_is_tried(nowhere: str, rabbitmq_server: RabbitmqServer) -> None:
    await works(link_to(nowhere, rabbitmq_server.address))


async def test_a_frame_that_is_longer_than_agreed_ends_the_connection(
    rabbitmq_server: RabbitmqServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(PATIENCE), FaultProxy(rabbitmq_server.address) as proxy:
        link = link_to(proxy.address, heartbeat=60)
        former = await link.connection()
        proxy.garble(after=3, size=3)  # the length of the answer
        with pytest.raises(BackendUnavailable), mapping(link.address):
            await former.channel()
        await asyncio.wait([former.closing])
        await works(link)
    assert "131072" in caplog.text, "what was agreed"


async def test_wrong_log_ins_are_refused_at_once(rabbitmq_server: RabbitmqServer) -> None:
    await refused(link_to(rabbitmq_server.address, password="wrong"), BackendRefused, "ACCESS_REFUSED")
    await refused(link_to(rabbitmq_server.address, vhost="nowhere"), BackendRefused, "nowhere")


async def test_tls_with_a_client_certificate_and_a_password(server: Any) -> None:
    guarded = server("rabbitmq", tls=True, credentials=True)
    files, address = guarded.certificates, guarded.address
    tls = TLS(cert=str(files.certificate), key=str(files.key), ca=str(files.authority))
    given = {"username": guarded.username, "password": guarded.password}
    await works(link_to(address, tls=tls, **given))
    url = f"amqps://{quote(guarded.username, safe='')}:{quote(guarded.password, safe='')}@{address}"
    await works(link_to(url, tls=tls))
    await refused(link_to(address, tls=tls), BackendRefused, "ACCESS_REFUSED")
    await refused(link_to(address, tls=TLS(secure=True), **given), BackendUnavailable, "not trusted")
    await refused(link_to(address, tls=TLS(ca=str(files.authority)), **given), BackendUnavailable, address)
    await refused(link_to(address, connect_timeout=0.5, **given), BackendUnavailable, address)


async def test_closing_while_an_attempt_is_given_up_ends_it() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    before = asyncio.all_tasks()
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as listener:
        host, port = listener.sockets[0].getsockname()
        for milliseconds in range(20):
            link = link_to(f"{host}:{port}", connect_timeout=0.01)
            waiting = asyncio.create_task(link.connection())
            await asyncio.sleep(milliseconds / 1000)
            async with asyncio.timeout(PATIENCE):
                await link.aclose()
                with pytest.raises(Closed):
                    await waiting
        for writer in writers:
            writer.close()
    left = asyncio.all_tasks() - before
    if left:
        _, pending = await asyncio.wait(left, timeout=PATIENCE)
        assert not pending
