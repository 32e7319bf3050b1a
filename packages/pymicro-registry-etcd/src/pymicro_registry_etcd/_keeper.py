"""Keeps registrations: renews the leases of this process, and puts again what etcd does not have any more."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from pymicro.clock import Clock
from pymicro.errors import BackendUnavailable
from pymicro.plugins import Build
from pymicro.record import ServiceRecord
from pymicro.registry.keeper import Keeper, KeptRegistration
from pymicro_registry_etcd._client import Entry, LeaseGone
from pymicro_registry_etcd._follow import KeyFollower
from pymicro_registry_etcd._session import Session
from pymicro_registry_etcd._wire import write


class EtcdRegistration(KeptRegistration[dict[bytes, bytes]]):
    """What one `register` call holds: a key for each node, all on one lease of whole seconds.

    Attributes:
        lease: the lease's id, chosen here, so that an attempt of unknown outcome can be repeated; 0 for none.
        granted: whether the lease is known to exist.
        written: the values that etcd has, as far as we know; None for none.
        followers: of its keys.
    """

    def __init__(self, service: ServiceRecord, ttl: float) -> None:
        super().__init__(service, math.ceil(ttl))
        self.lease, self.granted = 0, False
        self.written: dict[bytes, bytes] | None = None
        self.followers: list[_OwnKey] = []

    def write(self, service: ServiceRecord) -> dict[bytes, bytes]:
        """A value by key."""
        return write(service)


class EtcdKeeper(Keeper[EtcdRegistration]):
    """The task that keeps the registrations of one registry.

    Args:
        session: the connection.
        build: clock, logger and time-out.
    """

    def __init__(self, session: Session, build: Build) -> None:
        super().__init__(build, "etcd")
        self._session = session

    async def _keep(self, registration: EtcdRegistration) -> None:
        for _ in range(2):
            try:
                await self._renew(registration)
                await self._put(registration)
            except LeaseGone:
                registration.lease, registration.granted = 0, False
            else:
                self._follow(registration)
                return
        raise BackendUnavailable("the lease was revoked as soon as it was granted")

    async def _renew(self, registration: EtcdRegistration) -> None:
        """See to it that there is a lease with its time before it."""
        ttl = int(registration.ttl)
        if not ttl:
            return
        if registration.granted:
            if await self._session.call(lambda server: server.keep_alive(registration.lease)):
                return
            registration.lease, registration.granted = 0, False
        registration.lease = registration.lease or random.getrandbits(62) + 1
        registration.written = None
        await self._session.call(lambda server: server.grant(registration.lease, ttl))
        registration.granted = True

    async def _put(self, registration: EtcdRegistration) -> None:
        values = registration.values
        if registration.written is values:
            return
        registration.written = values  # what happens meanwhile sets it back
        try:
            await self._session.call(lambda server: server.put(values, registration.lease))
        except BaseException:
            registration.written = None
            raise

    async def _remove(self, registration: EtcdRegistration) -> None:
        if registration.ttl:
            await self._session.call(lambda server: server.revoke(registration.lease))
        else:
            await self._session.call(lambda server: server.delete(registration.values))

    # what becomes of the keys

    def _follow(self, registration: EtcdRegistration) -> None:
        if not registration.followers:
            registration.followers = [
                _OwnKey(self._session, self._clock, self, registration, key) for key in registration.values
            ]

    async def _let_go(self, registration: EtcdRegistration) -> None:
        followers, registration.followers = registration.followers, []
        for follower in followers:
            await follower.aclose()


class _OwnKey(KeyFollower):
    """Watches over one key of a registration.

    Args:
        session, clock: see `KeyFollower`.
        keeper: told when it should look.
        registration, key: whose it is.
    """

    def __init__(
        self, session: Session, clock: Clock, keeper: EtcdKeeper, registration: EtcdRegistration, key: bytes
    ) -> None:
        super().__init__(session, clock, (key, key + b"\0"))
        self._keeper, self._registration, self._key = keeper, registration, key

    def _changed(self, entries: Mapping[bytes, Entry]) -> None:
        """Put again what somebody deleted. What another process put there stays."""
        if self._key not in entries and self._registration.written is not None:
            self._registration.written = None
            self._keeper.hurry(self._registration)

    def _failed(self, error: Exception) -> None:
        """The server does not answer, or is another one since: look whether the lease is still there."""
        if self._registration.error is None:
            self._keeper.hurry(self._registration)
