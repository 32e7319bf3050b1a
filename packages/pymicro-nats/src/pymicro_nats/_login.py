"""Addresses and credentials."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from pymicro.errors import BackendRefused, ConfigurationError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import TLSContext, join_address
from pymicro_nats._options import NatsOptions

_DEFAULT_ADDRESS: Final = "127.0.0.1:4222"
_PORT: Final = 4222

_INSECURE: Final = "the server does not use TLS, and this service does"


class Login:
    """How to log in to one server.

    Args:
        options: the credentials.
        username, password: in their place, from the address; empty for none.
        tls: None: without TLS, unless the server insists.
    """

    def __init__(
        self, options: NatsOptions, username: str = "", password: str = "", *, tls: TLSContext | None = None
    ) -> None:
        self._options = options
        self._tls = tls
        self._user, self._password, self._token = options.username, options.password, options.token
        if username and not password:  # as NATS reads addresses
            self._user, self._password, self._token = None, None, username
        elif username:
            self._user, self._password, self._token = username, password, None

    @property
    def who(self) -> str:
        """Whom the server knows by these credentials, for errors."""
        options = self._options
        if self._user is not None:
            return f"the user {self._user!r}"
        if self._token is not None:
            return "this token"
        if options.nkey_file is not None:
            return f"the nkey of {options.nkey_file}"
        if options.credentials_file is not None:
            return f"the user of {options.credentials_file}"
        return "a client without credentials"

    def arguments(self, encrypted: Callable[[], bool]) -> dict[str, Any]:
        """What the driver's `connect` is given. It asks for secrets when the connection is encrypted, or never is."""

        def reveal(secret: str) -> Callable[[], str]:
            def tell() -> str:
                self.check(encrypted())
                return secret

            return tell

        found: dict[str, Any] = {"tls": self._tls.get()} if self._tls is not None else {}
        if self._user is not None:
            found |= {"user": self._user, "password": reveal(self._password or "")}
        elif self._token is not None:
            found |= {"token": reveal(self._token)}
        elif self._options.nkey_file is not None:
            found |= {"nkeys_seed": self._options.nkey_file}
        elif self._options.credentials_file is not None:
            found |= {"user_credentials": self._options.credentials_file}
        return found

    def check(self, encrypted: bool) -> None:
        """Refuse a connection in the clear where TLS is wanted: the driver would go on."""
        if self._tls is not None and not encrypted:
            raise BackendRefused(_INSECURE)


def logins(options: NatsOptions, build: Build) -> dict[str, Login]:
    """The servers that the user named, `host:port`, and how to log in to each.

    Raises:
        ConfigurationError: an address cannot be read, or files with credentials or certificates are of no use.
    """
    _check_files(options)
    contexts: dict[bool, TLSContext | None] = {False: None}
    found: dict[str, Login] = {}
    for text in build.addresses or (_DEFAULT_ADDRESS,):
        parts = _split(text)
        secure = build.tls.enabled or parts.scheme == "tls"
        if secure and secure not in contexts:
            tls = msgspec.structs.replace(build.tls, secure=True)
            contexts[secure] = TLSContext(tls, "client", clock=build.clock, logger=build.logger)
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        found[join_address(parts.hostname or "", parts.port or _PORT)] = Login(
            options, username, password, tls=contexts[secure]
        )
    return found


def _split(text: str) -> Any:
    url = text if "://" in text else f"nats://{text}"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        where = text.rpartition("@")[2]  # no secrets in errors
        raise ConfigurationError(f"NATS address {where!r}: write host:port, nats://host:port or tls://host:port")
    return parts


def _check_files(options: NatsOptions) -> None:
    files: Sequence[str | None] = (options.nkey_file, options.credentials_file)
    for path in (path for path in files if path is not None):
        if importlib.util.find_spec("nkeys") is None:
            raise ConfigurationError(f"{path} needs the package nkeys: pip install 'pymicro-nats[nkeys]'")
        if not Path(path).is_file():
            raise ConfigurationError(f"NATS credentials: there is no file {path}")
