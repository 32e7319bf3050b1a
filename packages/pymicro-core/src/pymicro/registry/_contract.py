"""The registry's contract: who runs what, and where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

import msgspec

from pymicro.plugins.toolkit import Component
from pymicro.record import ServiceRecord

RegistrationState = Literal["pending", "registered", "closed"]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of what a watch knows.

    Attributes:
        services: every version, with its nodes; empty when there are none.
        stale: whether the registry cannot be asked now, so that this is the last known state.
        error: why it is stale; None otherwise.
    """

    services: tuple[ServiceRecord, ...] = ()
    stale: bool = False
    error: Exception | None = None


class Registration(ABC):
    """A service's presence in the registry. The plugin keeps it alive until it is closed.

    Attributes:
        error: why it is pending; None otherwise.
    """

    error: Exception | None = None

    @property
    @abstractmethod
    def state(self) -> RegistrationState:
        """`registered` while peers can find it; `pending` while the plugin tries; `closed` after `aclose`."""

    @abstractmethod
    async def update(self, service: ServiceRecord) -> None:
        """Replace what is registered (same name, version and node ids) without a gap.

        Raises:
            Closed: the registration was closed.
            UsageError: the name, the version or the nodes are others.
            ConfigurationError: see `Registry.register`.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Deregister. Idempotent; bounded in time: a registry that cannot be reached forgets by its TTL."""


class Registry(Component):
    """Who runs what, and where. All methods may be called concurrently.

    Attributes:
        name: the name in node metadata, such as `mdns`.
    """

    name: str = ""

    @abstractmethod
    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        """Make `service` known and keep it known.

        Returns after the first attempt: a registry that cannot be reached leaves the registration `pending`, and the
        plugin goes on trying, and registers again whenever the registry lost it.

        Args:
            service: one version with at least one node.
            ttl: seconds after which it vanishes when this process stops renewing it; 0 for never.

        Raises:
            BackendRefused: credentials or permissions.
            ConfigurationError: this registry cannot hold such a record (a name too long, an address of another form).
        """

    @abstractmethod
    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        """One record per version; empty when nobody runs it.

        Raises:
            BackendUnavailable: the registry cannot be asked, so nobody knows.
            BackendRefused: the registry does not answer us: credentials, permissions, or more than it can tell.
        """

    @abstractmethod
    async def list_services(self) -> Sequence[str]:
        """The names of all services, sorted.

        Raises:
            BackendUnavailable: the registry cannot be asked.
            BackendRefused: see `get_service`.
        """

    @abstractmethod
    def watch(self, name: str | None = None) -> AbstractAsyncContextManager[AsyncIterator[Snapshot]]:
        """Follow one service, or all of them.

        The iterator yields the full state first and again after each change. Changes that come faster than they are
        taken are conflated: the newest state is yielded, intermediate ones are not. While the registry cannot be
        asked, one snapshot with `stale` and `error` (`BackendUnavailable`, `BackendRefused`) is yielded and the last
        state kept; a fresh full state follows when it is back. The iterator ends when the registry is closed.
        """
