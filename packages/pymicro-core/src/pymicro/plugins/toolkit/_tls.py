"""TLS contexts that follow their files: certificates are replaced on disk while the process runs."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from typing import Final, Literal

from pymicro._internal.logs import log
from pymicro.clock import Clock, SystemClock
from pymicro.errors import ConfigurationError
from pymicro.plugins._build import TLS

Side = Literal["client", "server"]

#: Seconds between two looks at the files.
CHECK_INTERVAL: Final = 2.0

#: What tells one state of a file from another: time of change, size, inode. A rename over the file changes them too.
_Stamp = tuple[int, int, int] | None


class TLSContext:
    """The TLS context of one side, built anew when a certificate, key or CA file changed.

    TLS 1.2 or newer. A client verifies the server's certificate and that it names the host dialled (an IP address
    must be among its subject alternative names); there is no way to switch that off. A server verifies clients if
    `client_auth` is set.

    Call `get` for each handshake: connections that exist keep their context, new ones get what is on disk. Files that
    cannot be loaded after a change leave the last good context in use and are logged once.

    Args:
        tls: where the files lie.
        side: `"client"` or `"server"`.
        alpn: protocols to offer, preferred first; empty for none.
        clock: tells when the files are to be looked at again.
        logger: hears of reloads and of files that cannot be loaded.

    Raises:
        ConfigurationError: a file is missing or no certificate or key, key and certificate do not fit, or a server
            has no certificate. The text names the file.
    """

    def __init__(
        self,
        tls: TLS,
        side: Side,
        *,
        alpn: Sequence[str] = (),
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._tls = tls
        self._side = side
        self._alpn = alpn
        self._clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("pymicro")
        self._files = [path for path in (tls.cert, tls.key, tls.ca) if path is not None]
        self._stamps = self._read_stamps()
        self._context = self._build()
        self._checked = self._clock.monotonic()
        self._stale = False

    def get(self) -> ssl.SSLContext:
        """The context for the next handshake. Looks at the files at most every two seconds; does not wait for them."""
        now = self._clock.monotonic()
        if self._files and now - self._checked >= CHECK_INTERVAL:
            self._checked = now
            self._refresh()
        return self._context

    def _refresh(self) -> None:
        stamps = self._read_stamps()
        if stamps == self._stamps and not self._stale:
            return
        try:
            self._context = self._build()
        except ConfigurationError as error:  # half of a pair may be written: look again at the next interval
            if not self._stale:
                log(self._logger, logging.WARNING, "certificates not reloaded", side=self._side, error=str(error))
            self._stale = True
            return
        self._stale = False
        self._stamps = stamps
        log(self._logger, logging.INFO, "certificates reloaded", side=self._side)

    def _read_stamps(self) -> list[_Stamp]:
        return [_stamp(path) for path in self._files]

    def _build(self) -> ssl.SSLContext:
        server = self._side == "server"
        if server and self._tls.cert is None:
            raise ConfigurationError("TLS is on, and a server needs a certificate: set --tls_cert and --tls_key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._alpn:
            context.set_alpn_protocols(list(self._alpn))
        self._load_own(context)
        if not server or self._tls.client_auth:
            context.verify_mode = ssl.CERT_REQUIRED
            self._load_authorities(context)
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        tls = self._tls
        if tls.cert is None:
            if tls.key is not None:
                raise ConfigurationError(f"TLS key {tls.key} is given without a certificate")
            return
        try:
            context.load_cert_chain(tls.cert, tls.key, password=_no_password)
        except OSError as error:
            files = tls.cert if tls.key is None else f"{tls.cert} with key {tls.key}"
            raise ConfigurationError(f"TLS certificate {files} cannot be loaded: {_reason(error)}") from error

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        if self._tls.ca is None:
            purpose = ssl.Purpose.CLIENT_AUTH if self._side == "server" else ssl.Purpose.SERVER_AUTH
            context.load_default_certs(purpose)
            return
        try:
            context.load_verify_locations(self._tls.ca)
        except OSError as error:
            raise ConfigurationError(f"TLS CA file {self._tls.ca} cannot be loaded: {_reason(error)}") from error


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted: use one without a passphrase")  # OpenSSL would ask at the terminal


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
