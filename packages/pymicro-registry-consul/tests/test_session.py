"""How Consul is reached: addresses, tokens, TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError
from pymicro.plugins import TLS, Build
from pymicro_registry_consul import ConsulOptions
from pymicro_registry_consul._registry import ConsulRegistry
from pymicro_registry_consul._session import read_address
from pymicro_testing.faults import FaultProxy
from pymicro_testing.leaks import no_leaks
from pymicro_testing.servers import ConsulServer


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:1234", ("10.0.0.1", 1234)),
        ("10.0.0.1", ("10.0.0.1", 8500)),
        ("consul.example", ("consul.example", 8500)),
        ("[::1]:1234", ("::1", 1234)),
        ("[::1]", ("::1", 8500)),
    ],
)
def test_addresses_may_lack_the_port(text: str, address: tuple[str, int]) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", ":8500", "a:b", "::1", "http://consul:8500", "consul:1-3"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        ConsulRegistry(build=Build(addresses=(text,)))


@pytest.mark.parametrize("token", ["secret\n", "sëcret"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ConsulRegistry(ConsulOptions(token=token))
    assert "cret" not in str(refused.value)


async def test_opening_asks_nobody(open_registry: Any) -> None:
    await open_registry("127.0.0.1:1")


async def test_another_address_is_tried(
    open_registry: Any, record: Any, name: str, consul_server: ConsulServer, eventually: Any
) -> None:
    dead = ("127.0.0.1:1", "127.0.0.1:2")
    for addresses in ((*dead, consul_server.address), (consul_server.address, *dead)):
        registry = await open_registry(*addresses)
        await registry.register(record(name), ttl=90)
        await eventually(lambda registry=registry: registry.get_service(name), bool)


@pytest.mark.parametrize("outage", ["stop", "pause"])
async def test_a_lost_address_is_replaced(
    open_registry: Any, record: Any, name: str, until: Any, consul_server: ConsulServer, outage: str
) -> None:
    async with no_leaks(), FaultProxy(consul_server.address) as one, FaultProxy(consul_server.address) as other:
        registry = await open_registry(one.address, other.address, heartbeat=0.2, connect_timeout=0.5)
        registration = await registry.register(record(name), ttl=90)
        async with registry.watch(name) as snapshots:
            await until(snapshots, lambda snapshot: bool(snapshot.services))
            assert other.connections == 0
            await getattr(one, outage)()
            assert await registry.get_service(name)
            await registration.update(record(name, moved="yes"))
            await until(snapshots, lambda snapshot: not snapshot.stale and "moved" in repr(snapshot.services))
        await registry.aclose()


async def test_nobody_at_any_address_is_said(open_registry: Any, name: str) -> None:
    registry = await open_registry("127.0.0.1:1", "127.0.0.1:2")
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2"):
        await registry.get_service(name)


# what is no Consul


@pytest.fixture
async def impostor() -> Any:
    """Starts something that answers each request alike; the result is its address."""
    runners: list[web.AppRunner] = []

    async def start(**answer: Any) -> str:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(**answer)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"{host}:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"text": "<html>"}, BackendUnavailable),
        ({"text": "[7]", "headers": {"X-Consul-Index": "1"}}, BackendUnavailable),
        ({"text": "[]"}, BackendUnavailable),
        ({"status": 500, "text": "No cluster leader"}, BackendUnavailable),
        ({"status": 429, "text": "Your IP is issuing too many requests"}, BackendUnavailable),
        ({"status": 301, "headers": {"Location": "/"}}, BackendRefused),
        ({"status": 400, "text": "Bad request"}, BackendRefused),
        ({"status": 403, "text": "ACL not found"}, BackendRefused),
        (
            {"text": "[]", "headers": {"X-Consul-Index": "1", "X-Consul-Results-Filtered-By-ACLs": "true"}},
            BackendRefused,
        ),
    ],
)
async def test_answers_that_are_none(
    open_registry: Any, name: str, until: Any, impostor: Any, answer: dict[str, Any], error: type[Exception]
) -> None:
    registry = await open_registry(await impostor(**answer))
    with pytest.raises(error):
        await registry.get_service(name)
    async with registry.watch(name) as snapshots:
        stale = await until(snapshots, lambda snapshot: snapshot.stale)
        assert isinstance(stale.error, error)
    await registry.aclose()


async def test_an_answer_without_end_is_cut_off(
    open_registry: Any, name: str, impostor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymicro_registry_consul._http.MAX_ANSWER", 1000)
    registry = await open_registry(await impostor(text=" " * 1001))
    with pytest.raises(BackendRefused, match="more than 1000 bytes"):
        await registry.get_service(name)
    await registry.aclose()


# tokens


@pytest.fixture
def guarded(server: Any) -> ConsulServer:
    """A server that demands a token, and speaks TLS with clients that show a certificate."""
    guarded = server("consul", tls=True, credentials=True)
    assert isinstance(guarded, ConsulServer)
    return guarded


def files(server: ConsulServer) -> TLS:
    assert server.certificates is not None
    its = server.certificates
    return TLS(ca=str(its.authority), cert=str(its.certificate), key=str(its.key))


async def test_a_token_and_a_client_certificate(
    open_registry: Any,
    record: Any,
    name: str,
    guarded: ConsulServer,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "that of another program")
    for address in (guarded.address, f"localhost:{guarded.port}"):
        registry = await open_registry(address, tls=files(guarded), token=guarded.password)
        registration = await registry.register(record(name), ttl=90)
        async with registry.watch(name) as snapshots:
            await until(snapshots, lambda snapshot: bool(snapshot.services))
            assert name in await registry.list_services()
            await registration.aclose()
            await until(snapshots, lambda snapshot: not snapshot.services)


async def test_a_wrong_token_is_refused(
    open_registry: Any, record: Any, name: str, guarded: ConsulServer, until: Any, caplog: Any
) -> None:
    registry = await open_registry(guarded.address, tls=files(guarded), token="wrong-and-secret")
    with pytest.raises(BackendRefused) as refused:
        await registry.register(record(name), ttl=90)
    assert "wrong-and-secret" not in f"{refused.value!r} {refused.value.__cause__!r} {caplog.text}"
    with pytest.raises(BackendRefused):
        await registry.get_service(name)
    async with registry.watch(name) as snapshots:
        stale = await until(snapshots, lambda snapshot: snapshot.stale)
        assert isinstance(stale.error, BackendRefused)


async def test_no_token_may_not_register(open_registry: Any, record: Any, name: str, guarded: ConsulServer) -> None:
    registry = await open_registry(guarded.address, tls=files(guarded))
    with pytest.raises(BackendRefused):
        await registry.register(record(name), ttl=90)


# TLS


async def test_tls_without_a_client_certificate_or_an_authority(
    open_registry: Any, name: str, guarded: ConsulServer
) -> None:
    right = files(guarded)
    for tls in (TLS(ca=right.ca), TLS(secure=True), TLS()):
        registry = await open_registry(guarded.address, tls=tls, token=guarded.password)
        with pytest.raises((BackendUnavailable, BackendRefused)):
            await registry.get_service(name)


async def test_a_server_that_nobody_certified_is_named(open_registry: Any, name: str, guarded: ConsulServer) -> None:
    registry = await open_registry(guarded.address, tls=TLS(secure=True))
    with pytest.raises(BackendUnavailable, match="certificate is not trusted"):
        await registry.get_service(name)


async def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    registry = ConsulRegistry(build=Build(tls=TLS(ca=str(tmp_path / "missing.pem"))))
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        await registry.__aenter__()
