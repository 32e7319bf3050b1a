"""The default selector: nodes from the watched registry."""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Literal, cast

import msgspec

from pymicro.clock import Clock
from pymicro.errors import UsageError
from pymicro.plugins import Build
from pymicro.plugins.toolkit import option
from pymicro.record import Node, ServiceRecord
from pymicro.registry import Entry, Registry, RegistryCache
from pymicro.selector._contract import Selector
from pymicro.selector._explain import Scene
from pymicro.selector._rotation import Member, Policy, Rotation, callable_now
from pymicro.selector._strategies import STRATEGIES
from pymicro.selector._types import Filter, Pick, Strategy


class RegistrySelectorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `--selector=registry`."""

    strategy: Annotated[
        Literal["random", "round_robin", "least_conn"], option("Which of the nodes that may be called is called.")
    ] = "random"
    lookup_timeout: Annotated[
        float, option("How long the first look-up of a service waits for the registry.", unit="seconds", gt=0)
    ] = 1.0
    idle: Annotated[
        float, option("How long a service that is no longer called stays watched.", unit="seconds", gt=0)
    ] = 600.0
    max_services: Annotated[int, option("How many services are watched at most.", ge=1)] = 10_000
    eject: Annotated[
        float,
        option("How long a node that cannot be reached is left out at first; it doubles.", unit="seconds", gt=0),
    ] = 1.0
    eject_max: Annotated[float, option("How long such a node is left out at most.", unit="seconds", gt=0)] = 30.0


class RegistrySelector(Selector):
    """Picks among the nodes that the registry knows, and leaves failing ones out.

    Args:
        options: see `RegistrySelectorOptions`.
        build: clock, logger, and the registry.
        registry: the registry, open before this and closed after it; None for the one that `build` has.
        chance: numbers from 0 up to and without 1, for strategies.
    """

    name = "registry"

    def __init__(
        self,
        options: RegistrySelectorOptions | None = None,
        build: Build | None = None,
        *,
        registry: Registry | None = None,
        chance: Callable[[], float] = _random.random,
    ) -> None:
        self._options = options or RegistrySelectorOptions()
        self._build = build or Build()
        self._clock: Clock = self._build.clock
        self._registry = registry
        self._chance = chance
        self._policy = Policy(
            eject=self._options.eject,
            eject_max=self._options.eject_max,
            clock=self._clock,
            logger=self._build.logger,
        )
        self._cache: RegistryCache | None = None
        self._services: dict[str, _Service] = {}

    async def pick(
        self,
        service: str,
        *,
        filters: Sequence[Filter] = (),
        strategy: str | Strategy | None = None,
        exclude: Collection[str] = (),
        key: str | None = None,
    ) -> Pick:
        known = self._services.get(service)
        if known is None or not known.rotation.active:
            known = await self._find(service)
        known.entry.used = True
        members: Sequence[Member] = known.rotation.active
        if filters or exclude:
            members = self._eligible(known, filters, exclude)
        choose = known.choose if strategy is None else self._chooser(known, strategy)
        return known.rotation.take(choose(members, key))

    def age(self, service: str) -> float | None:
        entry = self._cache.peek(service) if self._cache is not None else None
        return None if entry is None else entry.age(self._clock.monotonic())

    def on_removed(self, callback: Callable[[Node], None]) -> Callable[[], None]:
        return self._watched().on_removed(callback)

    async def _open(self) -> None:
        registry = self._registry or self._build.get("registry")
        self._cache = RegistryCache(
            registry,
            clock=self._clock,
            logger=self._build.logger,
            lookup_timeout=self._options.lookup_timeout,
            idle=self._options.idle,
            max_services=self._options.max_services,
        )
        self._cache.on_change(self._changed)
        await self._cache.__aenter__()

    async def _close(self) -> None:
        if self._cache is not None:
            await self._cache.aclose()

    def _watched(self) -> RegistryCache:
        self.require_open()
        assert self._cache is not None
        return self._cache

    async def _find(self, name: str) -> _Service:
        """The service with at least one node, after asking the registry when it is not known yet."""
        entry = await self._watched().lookup(name)
        known = self._services.get(name)
        if known is None or not known.rotation.active:
            raise self._scene(entry).nobody()
        return known

    def _changed(self, entry: Entry) -> None:
        known = self._services.get(entry.name)
        if not entry.live:
            if known is not None:
                known.rotation.update(())
                del self._services[entry.name]
            return
        if known is None:
            known = self._services[entry.name] = _Service(entry, self._policy, self._new(self._options.strategy))
        known.rotation.update(entry.services)

    def _eligible(self, known: _Service, filters: Sequence[Filter], exclude: Collection[str]) -> Sequence[Member]:
        """The members that pass and were not tried; of those the ones that are not left out, if there are any."""
        records: Sequence[ServiceRecord] = known.entry.services
        for filter in filters:
            records = filter(records)
        members = known.rotation.passing(records) if filters else known.rotation.members
        if not members:
            raise self._scene(known.entry).filtered(filters, known.rotation.members)
        untried = [member for member in members if member.node.id not in exclude]
        if not untried:
            raise self._scene(known.entry).tried(members)
        return callable_now(untried) or untried

    def _chooser(self, known: _Service, strategy: str | Strategy) -> _Choose:
        if not isinstance(strategy, str):
            return cast("_Choose", strategy)
        if strategy not in known.choosers:
            known.choosers[strategy] = self._new(strategy)
        return known.choosers[strategy]

    def _new(self, strategy: str) -> _Choose:
        if strategy not in STRATEGIES:
            raise UsageError(
                f"there is no strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}, or pass your own"
            )
        return cast("_Choose", STRATEGIES[strategy](self._chance))

    def _scene(self, entry: Entry) -> Scene:
        return Scene(entry, self._watched().registry_name, self._clock.monotonic())


#: A strategy returns one of those that it was given.
_Choose = Callable[[Sequence[Member], str | None], Member]


class _Service:
    """What the selector keeps of one service.

    Attributes:
        entry: what the registry says.
        rotation: its nodes.
        choose: the strategy of calls that name none.
        choosers: strategies by name, made when a call asks for one.
    """

    __slots__ = ("choose", "choosers", "entry", "rotation")

    def __init__(self, entry: Entry, policy: Policy, choose: _Choose) -> None:
        self.entry = entry
        self.rotation = Rotation(policy)
        self.choose = choose
        self.choosers: dict[str, _Choose] = {}
