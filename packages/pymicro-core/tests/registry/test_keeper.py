"""`Keeper`: registrations of a server that fails, hangs, refuses and forgets as the test says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, Closed, ConfigurationError, UsageError
from pymicro.plugins import Build
from pymicro.record import Node, ServiceRecord
from pymicro.registry import RegistrationState
from pymicro.registry.keeper import Keeper, KeptRegistration, check_update
from pymicro_testing.clock import ManualClock, settle

TTL = 30.0
DOWN = BackendUnavailable("down")
NO = BackendRefused("not you")


def record(name: str = "greeter", id: str = "1", **metadata: str) -> ServiceRecord:
    return ServiceRecord(name, "1.0", nodes=(Node(id, "127.0.0.1:9000", metadata),))


class Held(KeptRegistration[dict[str, str]]):
    """Written as the metadata of the first node."""

    def write(self, service: ServiceRecord) -> dict[str, str]:
        if not service.nodes:
            raise ConfigurationError("no nodes")
        return service.nodes[0].metadata


class Server:
    """What the registrations are kept at.

    Attributes:
        error: what every operation raises; None for nothing.
        holds: what is registered, by service.
        calls: the operations that began, with the time.
        now, most: how many operations run, and the most there were.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._open = asyncio.Event()
        self._open.set()
        self.error: Exception | None = None
        self.holds: dict[str, dict[str, str]] = {}
        self.calls: list[tuple[str, float]] = []
        self.now = self.most = 0

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """No operation ends in the block."""
        self._open.clear()
        yield
        self._open.set()

    async def do(self, what: str) -> None:
        self.calls.append((what, self._clock.monotonic()))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self._open.wait()
        finally:
            self.now -= 1
        if self.error is not None:
            raise self.error


class FakeKeeper(Keeper[Held]):
    def __init__(self, build: Build, server: Server, *, at_once: int = 100) -> None:
        super().__init__(build, "fake", at_once=at_once)
        self.server = server
        self.let_go: list[Held] = []

    async def _keep(self, registration: Held) -> None:
        values = registration.values
        await self.server.do("keep")
        self.server.holds[registration.service.name] = values

    async def _remove(self, registration: Held) -> None:
        assert registration in self.let_go
        await self.server.do("remove")
        self.server.holds.pop(registration.service.name, None)

    async def _let_go(self, registration: Held) -> None:
        self.let_go.append(registration)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> Server:
    return Server(clock)


@pytest.fixture
async def keeper(clock: ManualClock, server: Server) -> AsyncIterator[FakeKeeper]:
    keeper = FakeKeeper(Build(clock=clock), server)
    yield keeper
    await keeper.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert clock.pending == 0


def state(held: Held) -> RegistrationState:
    return held.state


async def test_what_is_registered_is_renewed_three_times_within_its_ttl(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    held = await keeper.register(Held(record(zone="a"), TTL))
    assert (held.state, held.error, server.holds) == ("registered", None, {"greeter": {"zone": "a"}})
    await clock.advance(TTL)
    assert server.calls == [("keep", 0.0), ("keep", 10.0), ("keep", 20.0), ("keep", 30.0)]


async def test_without_a_ttl_nothing_is_renewed(keeper: FakeKeeper, server: Server, clock: ManualClock) -> None:
    await keeper.register(Held(record(), 0))
    await clock.advance(1_000_000)
    assert server.calls == [("keep", 0.0)]


async def test_a_step_of_ones_own(server: Server, clock: ManualClock) -> None:
    class Often(FakeKeeper):
        def _step(self, registration: Held) -> float:
            return min(2.0, super()._step(registration))

    keeper = Often(Build(clock=clock), server)
    await keeper.register(Held(record(), 0))
    await clock.advance(5)
    assert server.calls == [("keep", 0.0), ("keep", 2.0), ("keep", 4.0)]
    await keeper.aclose()


async def test_a_server_that_is_down_leaves_it_pending_and_it_is_tried_with_back_off(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    server.error = DOWN
    held = await keeper.register(Held(record(), TTL))
    assert (held.state, held.error) == ("pending", DOWN)
    await clock.advance(60)
    pauses = [after - before for (_, before), (_, after) in zip(server.calls, server.calls[1:], strict=False)]
    assert 0.05 <= pauses[0] <= 0.1 < 0.5 <= min(pauses[5:]) <= max(pauses) <= 1.001
    assert held.failures == len(server.calls)
    server.error = None
    await clock.advance(1.001)
    assert (state(held), held.error, held.failures) == ("registered", None, 0)
    assert server.holds == {"greeter": {}}


async def test_an_error_that_is_kept_holds_no_frames(keeper: FakeKeeper, server: Server) -> None:
    server.error = DOWN
    held = await keeper.register(Held(record(), TTL))
    assert held.error is DOWN
    assert DOWN.__traceback__ is None


async def test_a_refusal_is_raised_and_what_may_be_there_is_removed(
    keeper: FakeKeeper, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.error = NO
    with pytest.raises(BackendRefused):
        await keeper.register(Held(record(), TTL))
    await settle()
    assert [what for what, _ in server.calls] == ["keep", "remove"]
    assert [line.message.split(" error=")[0] for line in caplog.records if line.levelno == logging.ERROR] == [
        "fake refused service=greeter"
    ]


async def test_a_refusal_later_is_told_once_and_tried_again(
    keeper: FakeKeeper, server: Server, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    held = await keeper.register(Held(record(), TTL))
    server.error = NO
    await clock.advance(20)
    assert (held.state, held.error) == ("pending", NO)
    assert len([line for line in caplog.records if line.levelno == logging.ERROR]) == 1
    server.error = None
    await clock.advance(1.001)
    assert state(held) == "registered"


async def test_a_mistake_of_the_plugin_stops_nothing_else(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    other = await keeper.register(Held(record("other"), TTL))
    server.error = RuntimeError("ours")
    held = await keeper.register(Held(record(), TTL))
    assert (held.state, held.error) == ("pending", server.error)
    server.error = None
    await clock.advance(11)
    assert [state(each) for each in (held, other)] == ["registered"] * 2


async def test_a_server_that_hangs_is_waited_for_until_the_time_out(server: Server, clock: ManualClock) -> None:
    keeper = FakeKeeper(Build(clock=clock, timeout=0.02), server)
    with server.hanging():
        held = await keeper.register(Held(record(), TTL))
        assert held.state == "pending"
        assert isinstance(held.error, BackendUnavailable)
        assert "fake has not answered within 0.02 s" in str(held.error)
    await settle()
    assert (state(held), held.error) == ("registered", None)
    await keeper.aclose()


async def test_registering_that_is_cancelled_is_taken_back_after_what_began(keeper: FakeKeeper, server: Server) -> None:
    with server.hanging():
        registering = asyncio.ensure_future(keeper.register(Held(record(), TTL)))
        await settle()
        assert server.now == 1
        registering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await registering
    await settle()
    assert ([what for what, _ in server.calls], server.holds) == (["keep", "remove"], {})


async def test_an_update_is_kept_at_once(keeper: FakeKeeper, server: Server) -> None:
    held = await keeper.register(Held(record(zone="a"), TTL))
    await held.update(record(zone="b"))
    assert server.holds == {"greeter": {"zone": "b"}}
    assert held.service == record(zone="b")


async def test_an_update_during_an_attempt_gets_one_of_its_own(keeper: FakeKeeper, server: Server) -> None:
    held = Held(record(zone="a"), TTL)
    with server.hanging():
        registering = asyncio.ensure_future(keeper.register(held))
        await settle()
        updating = asyncio.ensure_future(held.update(record(zone="b")))
        await settle()
        assert len(server.calls) == 1
    await registering
    await updating
    assert (len(server.calls), server.holds) == (2, {"greeter": {"zone": "b"}})


@pytest.mark.parametrize(
    ("update", "error"),
    [
        (record(id="2"), UsageError),
        (record("other"), UsageError),
        (ServiceRecord("greeter", "2.0", nodes=record().nodes), UsageError),
        (ServiceRecord("greeter", "1.0"), ConfigurationError),
    ],
)
async def test_an_update_to_something_else_changes_nothing(
    keeper: FakeKeeper, server: Server, update: ServiceRecord, error: type[Exception]
) -> None:
    held = await keeper.register(Held(record(zone="a"), TTL))
    with pytest.raises(error):
        await held.update(update)
    assert held.service == record(zone="a")
    assert len(server.calls) == 1


def test_what_an_update_may_change() -> None:
    nodes = (Node("1", "127.0.0.1:1"), Node("2", "127.0.0.1:2"))
    before = ServiceRecord("a", "1", nodes=nodes)
    check_update(before, ServiceRecord("a", "1", {"new": "metadata"}, nodes=nodes[::-1]))
    with pytest.raises(UsageError):
        check_update(before, ServiceRecord("a", "1", nodes=nodes[:1]))


def test_what_cannot_be_written_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigurationError):
        Held(ServiceRecord("greeter"), TTL)


async def test_what_is_closed_is_removed_and_nothing_is_done_for_it_any_more(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    held = await keeper.register(Held(record(), TTL))
    await held.aclose()
    await held.aclose()
    assert (held.state, server.holds) == ("closed", {})
    with pytest.raises(Closed):
        await held.update(record())
    await clock.advance(TTL)
    assert [what for what, _ in server.calls] == ["keep", "remove"]


async def test_closing_while_the_server_is_down_is_left_to_the_ttl(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    held = await keeper.register(Held(record(), TTL))
    server.error = DOWN
    await held.aclose()
    assert (held.state, held.error) == ("closed", None)
    await clock.advance(TTL)
    assert [what for what, _ in server.calls] == ["keep", "remove"]


async def test_without_a_ttl_closing_is_tried_until_it_is_done(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    held = await keeper.register(Held(record(), 0))
    server.error = DOWN
    await held.aclose()
    assert (held.state, held.error, server.holds) == ("closed", None, {"greeter": {}})
    server.error = None
    await clock.advance(1)
    assert server.holds == {}


async def test_a_removal_that_is_refused_is_not_tried_again(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    held = await keeper.register(Held(record(), 0))
    server.error = NO
    await held.aclose()
    await clock.advance(TTL)
    assert [what for what, _ in server.calls] == ["keep", "remove"]


async def test_closing_before_a_server_that_hangs_ends_with_the_time_out(server: Server, clock: ManualClock) -> None:
    keeper = FakeKeeper(Build(clock=clock, timeout=0.2), server)
    held = [await keeper.register(Held(record(name), TTL)) for name in "ab"]
    with server.hanging():
        keeper.hurry(held[0])
        await settle()
        await keeper.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [state(each) for each in held] == ["closed"] * 2
    assert set(keeper.let_go) == set(held), "also of the one whose removal never began"


async def test_who_closes_what_is_being_closed_waits_for_that(server: Server, clock: ManualClock) -> None:
    keeper = FakeKeeper(Build(clock=clock, timeout=1000), server)
    held = await keeper.register(Held(record(), TTL))
    with server.hanging():
        one = asyncio.ensure_future(held.aclose())
        await settle()
        both = asyncio.gather(one, keeper.aclose())
        await settle()
        assert not both.done()
    async with asyncio.timeout(15):
        await both
    assert [what for what, _ in server.calls] == ["keep", "remove"]


async def test_closing_closes_all(server: Server, clock: ManualClock) -> None:
    keeper = FakeKeeper(Build(clock=clock), server)
    held = [await keeper.register(Held(record(name), TTL)) for name in "abc"]
    await keeper.aclose()
    assert (server.holds, [state(each) for each in held]) == ({}, ["closed"] * 3)


async def test_what_the_server_lost_is_kept_again_without_waiting(
    keeper: FakeKeeper, server: Server, clock: ManualClock
) -> None:
    held = await keeper.register(Held(record(), TTL))
    server.holds.clear()
    keeper.hurry(held)
    await settle()
    assert (server.holds, clock.monotonic()) == ({"greeter": {}}, 0.0)


async def test_hurry_during_a_failing_attempt_does_not_wait_for_the_back_off(
    keeper: FakeKeeper, server: Server
) -> None:
    held = await keeper.register(Held(record(), TTL))
    with server.hanging():
        keeper.hurry(held)
        await settle()
        keeper.hurry(held)
        server.error = DOWN
    await settle()
    assert server.calls == [("keep", 0.0)] * 3


async def test_only_so_many_are_attended_to_at_once(server: Server, clock: ManualClock) -> None:
    keeper = FakeKeeper(Build(clock=clock), server, at_once=3)
    with server.hanging():
        registering = asyncio.gather(*(keeper.register(Held(record(f"s{n}"), TTL)) for n in range(10)))
        await settle()
    await registering
    assert len(server.holds) == 10
    assert 1 < server.most <= 3
    await keeper.aclose()


async def test_those_who_wait_longest_come_first(server: Server, clock: ManualClock) -> None:
    keeper = FakeKeeper(Build(clock=clock), server, at_once=1)
    for name, ttl in (("later", 30), ("sooner", 27)):
        await keeper.register(Held(record(name), ttl))
    last = await keeper.register(Held(record("last"), TTL))
    server.holds.clear()
    with server.hanging():
        keeper.hurry(last)
        await clock.advance(11)  # the others are due meanwhile
    await settle()
    assert list(server.holds) == ["last", "sooner", "later"]
    assert server.most == 1
    await keeper.aclose()
