"""The registry without a server: multicast DNS, as Go Micro's default registry speaks it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from pymicro.errors import Closed
from pymicro.plugins import Build
from pymicro.registry import Registration, RegistrationState, Registry, ServiceRecord, Snapshot
from pymicro.registry.keeper import check_update
from pymicro_registry_mdns._known import Departed, united
from pymicro_registry_mdns._network import Address, Network
from pymicro_registry_mdns._options import MdnsOptions
from pymicro_registry_mdns._packets import Entry, Wire
from pymicro_registry_mdns._querier import Querier
from pymicro_registry_mdns._responder import Responder
from pymicro_registry_mdns._watch import Watches


class MdnsRegistry(Registry):
    """Services on one network find each other without a server. Follows go-micro `registry/mdns_registry.go`.

    Each process answers for what it registered, so `ttl` means nothing here: a node is there while it answers. It
    says goodbye when it is deregistered. A process that dies is dropped from watches when it left `expiry` questions
    unanswered, and from lookups at once.

    Opening does nothing; sockets are opened and packets sent from the first call on. Calls before that moment cannot
    fail, and a machine without multicast does not disturb a program that chose another registry.

    Args:
        options: see `MdnsOptions`; None for the defaults.
        build: clock and logger are used; None for the defaults.

    Raises:
        ConfigurationError: the domain is no DNS name.
    """

    name = "mdns"

    def __init__(self, options: MdnsOptions | None = None, build: Build | None = None) -> None:
        options, build = options or MdnsOptions(), build or Build()
        clock, logger = build.clock, build.logger
        self._wire = Wire(options.domain, socket.gethostname())
        self._network = Network(
            options.interfaces, clock, logger, hear=self._hear, answered=self._answered, changed=self._changed
        )
        self._responder = Responder(self._wire, self._network, clock)
        self._querier = Querier(self._wire, self._network, clock, options.query_timeout)
        self._watches = Watches(self._wire, self._network, options, clock, logger)
        self._departed = Departed(clock)
        self._registrations: set[Registration] = set()

    async def register(self, service: ServiceRecord, *, ttl: float) -> Registration:
        """Announce `service` and answer for it. See `Registry.register`.

        Without a usable network the registration is `pending`, and announced when there is one.

        Raises:
            ConfigurationError: a DNS label over 63 bytes, an address that is not IP:port, or too many endpoints.
        """
        self.require_open()
        entries = self._wire.entries(service)
        await self._start()
        registration = MdnsRegistration(service, self._wire, self._responder, self._network, self._registrations)
        registration.speak(entries)
        return registration

    async def get_service(self, name: str) -> Sequence[ServiceRecord]:
        """Ask the network. See `Registry.get_service`.

        Returns when no new node has answered for 30 ms; after `query_timeout` when nobody answers.
        """
        await self._start()
        found = await self._querier.ask(name)
        self.require_open()
        return united(found.values())

    async def list_services(self) -> Sequence[str]:
        """Ask the network. See `Registry.list_services`."""
        await self._start()
        found = await self._querier.ask(None)
        self.require_open()
        return sorted(found)

    @asynccontextmanager
    async def watch(self, name: str | None = None) -> AsyncIterator[AsyncIterator[Snapshot]]:
        """Listen to announcements and goodbyes, and ask every `refresh` seconds. See `Registry.watch`."""
        await self._start()
        with self._watches.subscribe(name) as snapshots:
            yield snapshots

    async def _start(self) -> None:
        self.require_open()
        await self._network.start()
        self.require_open()

    async def _close(self) -> None:
        for registration in tuple(self._registrations):
            await registration.aclose()
        await self._watches.aclose()
        await self._network.aclose()

    def _hear(self, data: bytes, asker: Address) -> Iterable[bytes]:
        if announcement := self._wire.read_announcement(data):
            self._departed.announced(announcement)
            self._querier.heard(announcement)
            self._watches.heard(announcement, unasked=True)
            return ()
        return self._responder.hear(data, asker)

    def _answered(self, data: bytes) -> None:
        if answer := self._wire.read_answer(data):
            answer = self._departed.without(answer)
            self._querier.heard(answer)
            self._watches.heard(answer, unasked=False)

    def _changed(self) -> None:
        for registration in self._registrations:
            registration.error = self._network.unheard
        self._responder.announce_all()
        self._watches.network_changed()


class MdnsRegistration(Registration):
    """What one `register` call holds."""

    def __init__(
        self,
        service: ServiceRecord,
        wire: Wire,
        responder: Responder,
        network: Network,
        registrations: set[Registration],
    ) -> None:
        self._service, self._wire, self._responder, self._network = service, wire, responder, network
        self._registrations = registrations

    @property
    def state(self) -> RegistrationState:
        """`registered` while some interface hears questions. See `Registration.state`."""
        if self not in self._registrations:
            return "closed"
        return "pending" if self._network.unheard else "registered"

    def speak(self, entries: tuple[Entry, ...]) -> None:
        """Announce these, and answer for them from now on."""
        self._registrations.add(self)
        self.error = self._network.unheard
        self._responder.put(self, entries)

    async def update(self, service: ServiceRecord) -> None:
        """Announce and answer what is in `service` instead. See `Registration.update`.

        Raises:
            Closed: the registration was closed.
            UsageError: the name, the version or the nodes are others.
            ConfigurationError: mDNS cannot hold the record.
        """
        if self.state == "closed":
            raise Closed(f"the registration of {self._service.name!r} was closed: register it again")
        check_update(self._service, service)
        self.speak(self._wire.entries(service))

    async def aclose(self) -> None:
        """Say goodbye, without waiting for anybody. See `Registration.aclose`."""
        self._registrations.discard(self)
        self._responder.drop(self)
