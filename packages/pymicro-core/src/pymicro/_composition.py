"""The components of one service: made by the settings, opened in order, closed in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from pymicro.broker import Broker
from pymicro.clock import Clock
from pymicro.codec import CodecTable
from pymicro.errors import ConfigurationError, UsageError
from pymicro.plugins import Build, Identity
from pymicro.plugins._host import load
from pymicro.plugins.toolkit import Component
from pymicro.registry import Registry
from pymicro.settings import Choice, Settings

if TYPE_CHECKING:
    from pymicro.workers._supervisor import Supervisor


class Composition(Component):
    """All components of one run of a service.

    Args:
        settings: what was chosen.
        identity: who the service is.
        clock: the time that the components use.

    Attributes:
        codecs: by content type.
    """

    def __init__(self, settings: Settings, identity: Identity, clock: Clock) -> None:
        self._settings = settings
        self._identity = identity
        self._clock = clock
        self._stack = AsyncExitStack()
        self._components: dict[tuple[str, str], Any] = {}
        self._opening: dict[str, asyncio.Task[Any]] = {}
        self.codecs = CodecTable([])

    async def _open(self) -> None:
        self.codecs = CodecTable([self._codec(choice) for choice in self._settings.codecs])
        for choice in _in_order(self._settings.choices):
            await self._open_one(choice)

    async def _close(self) -> None:
        for task in self._opening.values():
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening.values())
        await self._stack.aclose()

    def get(self, kind: str, instance: str = "") -> Any:
        """An open component.

        Raises:
            UsageError: there is none.
        """
        try:
            return self._components[kind, instance]
        except KeyError:
            called = f" called {instance!r}" if instance else ""
            raise UsageError(f"the service has no open {kind}{called}") from None

    async def broker(self, instance: str = "") -> Broker:
        """A broker, opened when it is first needed: a program that publishes nothing needs none to be running.

        Raises:
            ConfigurationError: the service has none of that name.
            ConnectionFailed: it refused.
        """
        found: Broker | None = self._components.get(("broker", instance))
        if found is not None:
            return found
        choice = self._settings.choices.get(("broker", instance))
        if choice is None:
            raise ConfigurationError(
                f"the service has no broker called {instance!r}: give it with --broker={instance}:NAME"
            )
        self.require_open()
        task = self._opening.get(instance)
        if task is None:
            task = self._opening[instance] = asyncio.create_task(self._open_one(choice))
        try:
            opened: Broker = await asyncio.shield(task)
            return opened
        finally:
            if task.done():
                self._opening.pop(instance, None)

    def build(self, kind: str, instance: str = "") -> Build:
        """What a component of this kind is given."""
        choice = self._settings.choices.get((kind, instance))
        return Build(
            identity=self._identity,
            clock=self._clock,
            logger=logging.getLogger(f"pymicro.{kind}"),
            limits=self._settings.limits,
            tls=self._settings.tls,
            addresses=choice.addresses if choice is not None else (),
            components=self.get,
        )

    def _codec(self, choice: Choice) -> tuple[tuple[str, ...], Callable[[], Any], str]:
        plugin = choice.plugin
        if plugin is None:
            raise ConfigurationError("codecs are chosen by name")
        build = self.build("codec")
        if choice.optional:
            return plugin.content_types, lambda: load(plugin)(choice.options, build), plugin.name
        codec = load(plugin)(choice.options, build)  # somebody asked for it: a broken one fails the start
        return plugin.content_types, lambda: codec, plugin.name

    async def _open_one(self, choice: Choice) -> Any:
        opened = await self._stack.enter_async_context(self._make(choice))
        self._components[choice.kind, choice.instance] = opened
        return opened

    def _make(self, choice: Choice) -> Any:
        build = self.build(choice.kind, choice.instance)
        if choice.given is not None:
            return choice.given if isinstance(choice.given, Component) else choice.given(build)
        if choice.plugin is None:
            raise ConfigurationError(f"no {choice.kind} was chosen")
        return load(choice.plugin)(choice.options, build)

    def supervisor(self, stop: asyncio.Event) -> Supervisor:
        """What keeps worker processes that run this program; of the components it opens the registry.

        Args:
            stop: set when a worker asks for the end of all.
        """
        from pymicro.workers._supervisor import Parts, Supervisor

        parts = Parts(
            identity=self._identity,
            options=self._settings.server,
            registry=self._registry_alone(),
            takes_socket=self._make(self._settings.choices["transport", ""]).takes_socket,
            clock=self._clock,
        )
        return Supervisor(parts, stop.set)

    @asynccontextmanager
    async def _registry_alone(self) -> AsyncIterator[Registry]:
        """The registry, with what its plugin requires and nothing else, opened until the context ends."""
        wanted = _with_required("registry", self._settings.choices)
        choices = {key: choice for key, choice in self._settings.choices.items() if key[0] in wanted}
        async with self._stack:
            for choice in _in_order(choices):
                await self._open_one(choice)
            yield self.get("registry")


def _in_order(choices: Mapping[tuple[str, str], Choice]) -> Iterator[Choice]:
    """Kinds after those that their plugin requires; brokers are left for when they are needed."""
    waiting = {key: choice for key, choice in choices.items() if choice.kind != "broker"}
    done = {"broker"}
    while waiting:
        ready = [key for key, choice in waiting.items() if set(_requires(choice)) <= done]
        if not ready:
            raise ConfigurationError(f"plugins require each other or a missing kind: {sorted(waiting)}")
        for key in ready:
            done.add(key[0])
            yield waiting.pop(key)


def _with_required(kind: str, choices: Mapping[tuple[str, str], Choice]) -> set[str]:
    found = {kind}
    while more := {name for (own, _), choice in choices.items() if own in found for name in _requires(choice)} - found:
        found |= more
    return found


def _requires(choice: Choice) -> tuple[str, ...]:
    return choice.plugin.requires if choice.plugin is not None else ()
