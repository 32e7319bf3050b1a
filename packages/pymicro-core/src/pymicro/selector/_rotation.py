"""The nodes of one service: which may be called, which are left out, and when those are tried again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Any, Final

import msgspec

from pymicro._internal.backoff import backoff
from pymicro._internal.logs import log
from pymicro.clock import Clock, TimerHandle
from pymicro.record import Node, ServiceRecord
from pymicro.selector._types import Outcome, Pick

_SMOOTHING: Final = 0.2
_TEXT_LIMIT: Final = 200


class Standing(Enum):
    """Whether a node may be called."""

    IN = auto()
    """It may."""
    OUT = auto()
    """It failed and is left out for a while."""
    DUE = auto()
    """It was left out for long enough: the next call that chooses it is the probe."""
    PROBING = auto()
    """One call is finding out; others leave it out."""


# Globals are found faster than attributes of a class, and `pick` takes a microsecond.
_IN: Final = Standing.IN
_DUE: Final = Standing.DUE
_OK: Final = Outcome.OK


class Member:
    """A node and what became of calls to it: the `Candidate` that strategies see.

    Attributes:
        standing: whether it may be called.
        fault: what was wrong last; empty since it works.
        fault_at: when that was, on the monotonic clock.
        out_since: when it was left out, on the monotonic clock; meaningless while it is in.
        epoch: counts changes of standing: the outcome of a call that began before the last one proves nothing.
    """

    __slots__ = (
        "epoch",
        "failures",
        "fault",
        "fault_at",
        "in_flight",
        "latency",
        "node",
        "out_since",
        "pause",
        "service",
        "standing",
        "timer",
    )

    def __init__(self, node: Node, service: ServiceRecord) -> None:
        self.node = node
        self.service = service
        self.in_flight = 0
        self.latency = 0.0
        self.standing = _IN
        self.fault = ""
        self.fault_at = 0.0
        self.out_since = 0.0
        self.epoch = 0
        self.failures = 0
        self.pause = 0.0
        self.timer: TimerHandle | None = None

    def retire(self) -> None:
        """Take no more notice of outcomes."""
        self.epoch += 1
        if self.timer is not None:
            self.timer.cancel()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How failing nodes are treated.

    Attributes:
        eject: seconds for which a node is left out at first; doubles with each probe that fails.
        eject_max: the longest.
        clock, logger: of the selector.
    """

    eject: float
    eject_max: float
    clock: Clock
    logger: logging.Logger


class Rotation:
    """The nodes of one service.

    A node that cannot be reached, or breaks a connection, is left out for a while; then one call probes it. A probe
    that succeeds brings it back, one that fails doubles the time. One whose end nobody tells is given up after the
    same time. When every node is out all are used: an error from a node tells more than one that names no node.

    Attributes:
        members: every node.
        active: those that strategies choose from; empty only if there are no nodes.
    """

    def __init__(self, policy: Policy) -> None:
        self.members: tuple[Member, ...] = ()
        self.active: tuple[Member, ...] = ()
        self._policy = policy
        self._clock = policy.clock

    def update(self, services: Iterable[ServiceRecord]) -> None:
        """These are the nodes now. Those that stay at their address keep their standing."""
        known = {_place(member.service, member.node): member for member in self.members}
        members: dict[tuple[str, str, str], Member] = {}
        for service in services:
            for node in service.nodes:
                place = _place(service, node)
                member = known.pop(place, None) or Member(node, service)
                member.node, member.service = node, service
                members[place] = member
        for member in known.values():
            member.retire()
        self.members = tuple(members.values())
        self._arrange()

    def passing(self, services: Iterable[ServiceRecord]) -> Sequence[Member]:
        """The members that are in `services`."""
        members = {_place(member.service, member.node): member for member in self.members}
        places = [_place(service, node) for service in services for node in service.nodes]
        return [members[place] for place in places if place in members]

    def take(self, member: Member) -> Pick:
        """Note that an attempt at the node begins."""
        if member.standing is _DUE:
            self._probe(member)
        member.in_flight += 1
        return TrackedPick(member.node, member.service, rotation=self, member=member, epoch=member.epoch)

    def report(self, member: Member, epoch: int, outcome: Outcome, error: BaseException | None) -> None:
        """An attempt that began in `epoch` ended, or has got so far."""
        if epoch != member.epoch:
            return
        if outcome in (Outcome.UNREACHABLE, Outcome.BROKEN):
            self._note(member, outcome, error)
            if member.standing is not Standing.OUT:
                self._leave_out(member)
        elif outcome in (Outcome.OK, Outcome.OVERLOADED):
            if member.standing is not _IN:
                self._bring_back(member)
            member.fault = ""
            if outcome is Outcome.OVERLOADED:
                self._note(member, outcome, error)

    def _note(self, member: Member, outcome: Outcome, error: BaseException | None) -> None:
        member.fault = (str(error) if error is not None else "")[:_TEXT_LIMIT] or outcome
        member.fault_at = self._clock.monotonic()

    def _leave_out(self, member: Member) -> None:
        member.failures += 1
        member.epoch += 1
        if member.failures == 1:
            member.out_since = self._clock.monotonic()
            self._log(logging.WARNING, "node left out", member, error=member.fault)
        member.standing = Standing.OUT
        member.pause = backoff(member.failures, first=self._policy.eject, longest=self._policy.eject_max)
        self._wait(member)

    def _wait(self, member: Member) -> None:
        if member.timer is not None:
            member.timer.cancel()
        member.timer = self._clock.call_later(member.pause, self._due, member)
        self._arrange()

    def _due(self, member: Member) -> None:
        member.timer = None
        member.standing = _DUE
        self._arrange()

    def _probe(self, member: Member) -> None:
        member.standing = Standing.PROBING
        self._wait(member)

    def _bring_back(self, member: Member) -> None:
        member.epoch += 1
        member.failures = 0
        member.standing = _IN
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None
        self._arrange()
        self._log(logging.INFO, "node back", member, seconds=round(self._clock.monotonic() - member.out_since, 3))

    def _arrange(self) -> None:
        self.active = callable_now(self.members) or self.members

    def _log(self, level: int, event: str, member: Member, **fields: Any) -> None:
        node = member.node
        log(
            self._policy.logger, level, event, service=member.service.name, node=node.id, address=node.address, **fields
        )


class TrackedPick(Pick, kw_only=True):
    """A pick whose end the rotation hears of."""

    rotation: Rotation
    member: Member
    epoch: int
    told: bool = False

    def done(self, outcome: Outcome, seconds: float = 0.0, error: BaseException | None = None) -> None:
        if self.told:
            return
        self.told = True
        member = self.member
        member.in_flight -= 1
        if outcome is _OK:
            member.latency += (seconds - member.latency) * (_SMOOTHING if member.latency else 1.0)
            if not member.fault:
                return
        self.rotation.report(member, self.epoch, outcome, error)

    def answered(self) -> None:
        if self.member.fault and not self.told:
            self.rotation.report(self.member, self.epoch, Outcome.OK, None)


def callable_now(members: Iterable[Member]) -> tuple[Member, ...]:
    """Those that are not left out."""
    return tuple([member for member in members if member.standing is _IN or member.standing is _DUE])


def _place(service: ServiceRecord, node: Node) -> tuple[str, str, str]:
    return service.version, node.id, node.address
