"""TLS contexts follow the files they are made of."""

from __future__ import annotations

import datetime
import logging
import os
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pymicro.errors import ConfigurationError
from pymicro.plugins import TLS
from pymicro.plugins.toolkit import TLSContext
from pymicro_testing.clock import ManualClock


def self_signed(folder: Path, stem: str, *, password: bytes | None = None) -> tuple[str, str]:
    """Write a certificate for `localhost`, its own authority, and its key; their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    cert_path, key_path = folder / f"{stem}.pem", folder / f"{stem}-key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return str(cert_path), str(key_path)


def replace(target: str, source: str) -> None:
    """Put `source` in the place of `target` in one step, as certificate managers do."""
    shutil.copy(source, f"{target}.new")
    os.replace(f"{target}.new", target)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> tuple[str | None, str | None]:
    """Do a handshake in memory; the protocol versions, as (TLS, ALPN)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(to_client, to_server, server_hostname=host)
    right = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (left, right):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    left.do_handshake()
    return left.version(), left.selected_alpn_protocol()


def test_both_sides_meet_with_verification_and_alpn(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "server")
    server = TLSContext(TLS(cert=cert, key=key), "server", alpn=("http/1.1",)).get()
    client = TLSContext(TLS(ca=cert), "client", alpn=("http/1.1",)).get()
    assert handshake(server, client) == ("TLSv1.3", "http/1.1")
    assert client.verify_mode == ssl.CERT_REQUIRED
    assert client.check_hostname
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2


def test_another_host_or_another_authority_is_refused(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "server")
    other, _ = self_signed(tmp_path, "other")
    server = TLSContext(TLS(cert=cert, key=key), "server").get()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, TLSContext(TLS(ca=cert), "client").get(), "elsewhere")
    for tls in (TLS(ca=other), TLS(secure=True)):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, TLSContext(tls, "client").get())


def test_clients_are_verified_when_asked(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "server")
    own, own_key = self_signed(tmp_path, "client")
    server = TLSContext(TLS(cert=cert, key=key, ca=own, client_auth=True), "server").get()
    assert handshake(server, TLSContext(TLS(ca=cert, cert=own, key=own_key), "client").get())[0] == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        handshake(server, TLSContext(TLS(ca=cert), "client").get())


async def test_changed_files_make_a_new_context(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    cert, key = self_signed(tmp_path, "server")
    context = TLSContext(TLS(cert=cert, key=key), "server", clock=clock)
    first = context.get()
    new_cert, new_key = self_signed(tmp_path, "renewed")
    replace(cert, new_cert)
    replace(key, new_key)
    assert context.get() is first, "the files are not looked at for each handshake"
    await clock.advance(3)
    with caplog.at_level(logging.INFO):
        second = context.get()
    assert second is not first
    assert handshake(second, TLSContext(TLS(ca=new_cert), "client").get())
    assert [record.getMessage() for record in caplog.records] == ["certificates reloaded side=server"]
    await clock.advance(3)
    assert context.get() is second


async def test_an_authority_that_is_taken_away_is_trusted_no_more(tmp_path: Path) -> None:
    clock = ManualClock()
    cert, key = self_signed(tmp_path, "server")
    ca = str(tmp_path / "ca.pem")
    shutil.copy(cert, ca)
    server = TLSContext(TLS(cert=cert, key=key), "server").get()
    context = TLSContext(TLS(ca=ca), "client", clock=clock)
    handshake(server, context.get())
    replace(ca, self_signed(tmp_path, "other")[0])
    await clock.advance(3)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, context.get())


async def test_files_that_cannot_be_loaded_leave_the_old_context_and_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    cert, key = self_signed(tmp_path, "server")
    context = TLSContext(TLS(cert=cert, key=key), "server", clock=clock)
    first = context.get()
    new_cert, new_key = self_signed(tmp_path, "renewed")
    replace(cert, new_cert)  # the key does not fit yet
    for _ in range(3):
        await clock.advance(3)
        assert context.get() is first
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert cert in caplog.text
    replace(key, new_key)
    await clock.advance(3)
    assert context.get() is not first


async def test_a_file_that_is_missing_for_a_while_does_no_harm(tmp_path: Path) -> None:
    clock = ManualClock()
    cert, key = self_signed(tmp_path, "server")
    context = TLSContext(TLS(cert=cert, key=key), "server", clock=clock)
    first = context.get()
    os.rename(cert, f"{cert}.away")
    await clock.advance(3)
    assert context.get() is first
    os.rename(f"{cert}.away", cert)
    await clock.advance(3)
    assert handshake(context.get(), TLSContext(TLS(ca=cert), "client").get())


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "server")
    _, other_key = self_signed(tmp_path, "other")
    locked, locked_key = self_signed(tmp_path, "locked", password=b"secret")
    missing = str(tmp_path / "missing.pem")
    for tls, problem in (
        (TLS(cert=missing, key=key), "missing"),
        (TLS(cert=cert, key=other_key), "other-key"),
        (TLS(cert=key, key=key), "server-key"),
        (TLS(cert=locked, key=locked_key), "encrypted"),
        (TLS(cert=cert, key=key, ca=missing, client_auth=True), "missing"),
        (TLS(cert=cert, key=key, ca=key, client_auth=True), "CA file"),
        (TLS(secure=True), "a server needs a certificate"),
        (TLS(secure=True, key=key), "a server needs a certificate"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            TLSContext(tls, "server")
    with pytest.raises(ConfigurationError, match="without a certificate"):
        TLSContext(TLS(secure=True, key=key), "client")
