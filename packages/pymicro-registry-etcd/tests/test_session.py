"""How etcd is reached: addresses, credentials, TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError
from pymicro.plugins import TLS, Build
from pymicro_registry_etcd import EtcdOptions
from pymicro_registry_etcd._registry import EtcdRegistry
from pymicro_registry_etcd._session import read_address
from pymicro_testing.faults import FaultProxy
from pymicro_testing.leaks import no_leaks
from pymicro_testing.servers import EtcdServer


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:1234", "10.0.0.1:1234"),
        ("10.0.0.1", "10.0.0.1:2379"),
        ("etcd.example", "etcd.example:2379"),
        ("[::1]:1234", "[::1]:1234"),
        ("[::1]", "[::1]:2379"),
    ],
)
def test_addresses_may_lack_the_port(text: str, address: str) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", ":2379", "a:b", "::1", "http://etcd:2379", "etcd:1-3"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        EtcdRegistry(build=Build(addresses=(text,)))


def test_a_password_needs_a_user_name() -> None:
    with pytest.raises(ConfigurationError, match="user name"):
        EtcdRegistry(EtcdOptions(password="x"))


async def test_opening_asks_nobody(open_registry: Any) -> None:
    await open_registry("127.0.0.1:1")


async def test_another_address_is_tried(open_registry: Any, record: Any, name: str, etcd_server: EtcdServer) -> None:
    dead = ("127.0.0.1:1", "127.0.0.1:2")
    for addresses in ((*dead, etcd_server.address), (etcd_server.address, *dead)):
        registry = await open_registry(*addresses)
        await registry.register(record(name), ttl=90)
        assert await registry.get_service(name)


@pytest.mark.parametrize("outage", ["stop", "pause"])
async def test_a_lost_address_is_replaced(
    open_registry: Any, record: Any, name: str, until: Any, etcd_server: EtcdServer, outage: str
) -> None:
    async with no_leaks(), FaultProxy(etcd_server.address) as one, FaultProxy(etcd_server.address) as other:
        registry = await open_registry(one.address, other.address, heartbeat=0.2, connect_timeout=0.5)
        registration = await registry.register(record(name), ttl=90)
        async with registry.watch(name) as snapshots:
            await until(snapshots, lambda snapshot: bool(snapshot.services))
            used = one if one.connections else other
            await getattr(used, outage)()
            assert await registry.get_service(name)
            await registration.update(record(name, moved="yes"))
            await until(snapshots, lambda snapshot: not snapshot.stale and "moved" in repr(snapshot.services))
        await registry.aclose()


async def test_nobody_at_any_address_is_said(open_registry: Any, name: str) -> None:
    registry = await open_registry("127.0.0.1:1", "127.0.0.1:2")
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2|127\.0\.0\.1:2.*127\.0\.0\.1:1"):
        await registry.get_service(name)


# credentials


@pytest.fixture
def guarded(server: Any) -> EtcdServer:
    """A server that demands user and password."""
    guarded = server("etcd", credentials=True)
    assert isinstance(guarded, EtcdServer)
    return guarded


async def test_credentials(open_registry: Any, record: Any, name: str, guarded: EtcdServer, until: Any) -> None:
    registry = await open_registry(guarded.address, username=guarded.username, password=guarded.password)
    registration = await registry.register(record(name), ttl=90)
    async with registry.watch(name) as snapshots:
        await until(snapshots, lambda snapshot: bool(snapshot.services))
        await registration.aclose()
        await until(snapshots, lambda snapshot: not snapshot.services)


@pytest.mark.parametrize(
    "wrong", [{}, {"username": "tester", "password": "wrong"}, {"username": "who", "password": "x"}]
)
async def test_wrong_credentials_are_refused(
    open_registry: Any, record: Any, name: str, guarded: EtcdServer, until: Any, wrong: dict[str, str]
) -> None:
    registry = await open_registry(guarded.address, **wrong)
    with pytest.raises(BackendRefused):
        await registry.register(record(name), ttl=90)
    with pytest.raises(BackendRefused):
        await registry.get_service(name)
    async with registry.watch(name) as snapshots:
        stale = await until(snapshots, lambda snapshot: snapshot.stale)
        assert isinstance(stale.error, BackendRefused)


async def test_a_token_that_the_server_forgot_is_replaced(
    open_registry: Any, record: Any, name: str, guarded: EtcdServer, until: Any
) -> None:
    registry = await open_registry(guarded.address, username=guarded.username, password=guarded.password)
    await registry.register(record(name), ttl=90)
    async with registry.watch(name) as snapshots:
        await until(snapshots, lambda snapshot: bool(snapshot.services))
        await guarded.restart()
        assert await registry.get_service(name)
        await registry.register(record(name, "2"), ttl=90)
        await until(snapshots, lambda snapshot: not snapshot.stale and len(snapshot.services[0].nodes) == 2)


async def test_an_idle_token_is_replaced(open_registry: Any, name: str, server: Any, eventually: Any) -> None:
    brief = server("etcd", credentials=True, settings={"auth-token-ttl": "1"})
    registry = await open_registry(brief.address, username=brief.username, password=brief.password)
    await registry.get_service(name)
    await asyncio.sleep(2.5)  # etcd looks at its tokens once a second
    assert await registry.get_service(name) == ()


# TLS


@pytest.fixture
def secure(server: Any) -> EtcdServer:
    """A server that speaks TLS with clients that show a certificate."""
    secure = server("etcd", tls=True, credentials=True)
    assert isinstance(secure, EtcdServer)
    return secure


def files(server: EtcdServer) -> TLS:
    assert server.certificates is not None
    its = server.certificates
    return TLS(ca=str(its.authority), cert=str(its.certificate), key=str(its.key))


async def test_tls_with_a_client_certificate(
    open_registry: Any, record: Any, name: str, secure: EtcdServer, until: Any
) -> None:
    login = {"username": secure.username, "password": secure.password}
    for address in (secure.address, f"localhost:{secure.port}"):
        registry = await open_registry(address, tls=files(secure), **login)
        await registry.register(record(name), ttl=90)
        async with registry.watch(name) as snapshots:
            await until(snapshots, lambda snapshot: bool(snapshot.services))


async def test_tls_without_a_client_certificate_or_an_authority(
    open_registry: Any, name: str, secure: EtcdServer
) -> None:
    right = files(secure)
    for tls in (TLS(ca=right.ca), TLS(secure=True), TLS()):
        registry = await open_registry(secure.address, tls=tls)
        with pytest.raises(BackendUnavailable):
            await registry.get_service(name)


async def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    registry = EtcdRegistry(build=Build(tls=TLS(ca=str(tmp_path / "missing.pem"))))
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        await registry.__aenter__()
