"""Unary calls through the whole stack, in memory."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from pymicro import Request, Response, Service, call_options, context, endpoint, errors
from pymicro.rpc import Call


@dataclass
class Hello:
    name: str


@dataclass
class Greeting:
    text: str


class Greeter:
    async def hello(self, request: Hello) -> Greeting:
        return Greeting(f"Hello {request.name}")

    async def fail(self, request: Hello) -> Greeting:
        raise errors.NotFound("no such user", id="users")

    async def crash(self, request: Hello) -> Greeting:
        raise KeyError("the secret")

    async def nothing(self) -> None:
        return None

    def plain(self, request: Hello) -> Greeting:
        return Greeting(threading.current_thread().name)

    async def raw(self, request: bytes) -> bytes:
        return request[::-1]


class AsyncGreeter(Protocol):
    async def hello(self, request: Hello) -> Greeting: ...


Make = Callable[..., Service]


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something holds that nothing announces."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - counters have no event
            await asyncio.sleep(0)


async def test_a_call_reaches_the_handler_and_comes_back(service: Make) -> None:
    async with service("greeter", Greeter()), service("caller") as caller:
        greeter = caller.client.stub("greeter", AsyncGreeter, name="Greeter")
        assert await greeter.hello(Hello("John")) == Greeting("Hello John")


async def test_a_service_calls_itself_without_any_set_up() -> None:
    service = Service("greeter", environ={}, registry="memory", transport="memory", broker="memory", drain_delay=0)
    service.handle(Greeter())
    async with service:
        assert await service.client.call("greeter", "Greeter.Hello", {"name": "Ann"}) == {"text": "Hello Ann"}


async def test_a_service_starts_again_after_it_stopped(service: Make) -> None:
    greeter = service("greeter", Greeter())
    for _ in range(2):
        async with greeter:
            assert await greeter.client.call("greeter", "Greeter.Hello", {"name": "Ann"}) == {"text": "Hello Ann"}


def test_a_service_starts_again_in_another_loop(service: Make) -> None:
    greeter = service("greeter", Greeter())

    async def once() -> Any:
        async with greeter:
            return await greeter.client.call("greeter", "Greeter.Hello", {"name": "Ann"})

    assert asyncio.run(once()) == asyncio.run(once()) == {"text": "Hello Ann"}


async def test_endpoints_without_request_and_response(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        assert await greeter.client.call("greeter", "Greeter.Nothing", response=None) is None


async def test_bytes_are_the_undecoded_body(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        assert await greeter.client.call("greeter", "Greeter.Raw", b"\x00abc", response=bytes) == b"cba\x00"


async def test_plain_functions_run_in_threads(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        answer = await greeter.client.call("greeter", "Greeter.Plain", {"name": ""}, response=Greeting)
        assert answer.text.startswith("pymicro")


async def test_an_error_arrives_as_the_same_class(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        with pytest.raises(errors.NotFound) as caught:
            await greeter.client.call("greeter", "Greeter.Fail", {"name": ""})
        assert (caught.value.id, caught.value.code, caught.value.detail) == ("users", 404, "no such user")
        assert caught.value.status == "Not Found"
        assert str(caught.value) == "users: 404 Not Found: no such user"


class OutOfStock(errors.Conflict):
    item: str
    left: int = 0

    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"only {left} of {item} left")
        self.item, self.left = item, left


class Shop:
    async def buy(self, item: str) -> None:
        raise OutOfStock(item, 2)


async def test_a_users_own_error_arrives_with_its_fields(service: Make) -> None:
    async with service("shop", Shop()) as shop:
        with pytest.raises(OutOfStock) as caught:
            await shop.client.stub("shop", Shop).buy("tea")
        assert (caught.value.item, caught.value.left, caught.value.id) == ("tea", 2, "shop")


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
async def test_every_code_survives_three_hops(service: Make, code: int) -> None:
    class Last:
        async def run(self) -> None:
            raise errors.from_code(code, "why", "last")

    def hop(name: str, target: str, endpoint: str) -> tuple[Service, Service]:
        caller = service(f"{name}.client")

        class Hop:
            async def run(self) -> None:
                await caller.client.call(target, endpoint)

        return service(name, Hop()), caller

    first, to_middle = hop("first", "middle", "Hop.Run")
    middle, to_last = hop("middle", "last", "Last.Run")
    async with service("last", Last()), middle, to_last, first, to_middle, service("user", client_retries=0) as user:
        with pytest.raises(errors.BY_CODE[code]) as caught:
            await user.client.call("first", "Hop.Run")
        assert (caught.value.code, caught.value.detail, caught.value.id) == (code, "why", "last")


async def test_an_exception_is_a_500_with_an_id_that_the_log_repeats(
    service: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async with service("greeter", Greeter()) as greeter:
        with caplog.at_level(logging.ERROR, "pymicro"), pytest.raises(errors.InternalServerError) as caught:
            await greeter.client.call("greeter", "Greeter.Crash", {"name": ""})
    number = caught.value.detail.removeprefix("internal error ")
    assert "secret" not in str(caught.value)
    assert any(number in record.getMessage() and "the secret" in record.getMessage() for record in caplog.records)


async def test_a_body_that_does_not_fit_names_the_field(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        with pytest.raises(errors.BadRequest, match="name"):
            await greeter.client.call("greeter", "Greeter.Hello", {"name": 1})


async def test_a_reply_of_another_type_is_a_500(service: Make) -> None:
    class Wrong:
        async def run(self) -> Greeting:
            return object()  # type: ignore[return-value]  # the mistake under test

    async with service("wrong", Wrong()) as wrong:
        with pytest.raises(errors.InternalServerError, match=r"Wrong\.Run"):
            await wrong.client.call("wrong", "Wrong.Run")


async def test_a_content_type_that_cannot_carry_the_types_is_a_400(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        with pytest.raises(errors.BadRequest, match="application/octet-stream"):
            await greeter.client.call(
                "greeter", "Greeter.Hello", b"x", response=bytes, content_type="application/octet-stream"
            )


async def test_a_missing_method_names_the_near_one(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        with pytest.raises(errors.NotFound, match=r"no endpoint Greeter\.Helo, did you mean Greeter\.Hello"):
            await greeter.client.call("greeter", "Greeter.Helo", {})
        with pytest.raises(errors.BadRequest, match=r"Handler\.Method"):
            await greeter.client.call("greeter", "Hello", {})


async def test_an_unknown_service_fails_soon_and_says_so(service: Make) -> None:
    async with service("caller") as caller:
        with pytest.raises(errors.Unavailable, match="nobody") as caught:
            await asyncio.wait_for(caller.client.call("nobody", "A.B"), 3)
        assert caught.value.executed == "no"


async def test_the_deadline_cancels_the_handler(service: Make) -> None:
    cancelled = asyncio.Event()

    class Slow:
        async def wait(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    async with service("slow", Slow()) as slow:
        with pytest.raises(errors.DeadlineExceeded, match=r"slow Slow\.Wait"):
            await slow.client.call("slow", "Slow.Wait", timeout=0.05)
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_the_server_answers_504_when_its_deadline_passes(mesh: Any) -> None:
    class Slow:
        async def wait(self) -> None:
            await asyncio.Event().wait()

    from pymicro.message import Message
    from pymicro.metadata import Headers
    from pymicro.record import Node
    from pymicro.rpc import error_of
    from pymicro.transport import MemoryTransport

    async with mesh.service("slow", Slow()) as slow, MemoryTransport(network=mesh.network) as transport:
        socket = await transport.dial(Node("slow", slow.server.node.address), timeout=1)
        head = Headers(
            {"Content-Type": "application/json", "Micro-Endpoint": "Slow.Wait", "Timeout": "20000000", "Micro-Id": "7"}
        )
        await socket.send(Message(head, b"{}"))
        reply = await socket.recv()
        error = error_of(reply.headers)
        assert error is not None
        assert error.code == 504
        await socket.aclose()


async def test_what_remains_of_the_deadline_follows_the_calls(service: Make) -> None:
    seen: list[float] = []
    inner = service("inner.client")

    class Last:
        async def look(self) -> None:
            deadline = context().deadline
            assert deadline is not None
            seen.append(deadline)

    class First:
        async def look(self) -> None:
            deadline = context().deadline
            assert deadline is not None
            seen.append(deadline)
            await inner.client.call("last", "Last.Look", timeout=1000)

    async with service("last", Last()), inner, service("first", First()) as first:
        await first.client.call("first", "First.Look", timeout=1.0)
    assert seen[1] <= seen[0] + 0.01


async def test_cancelling_a_call_cancels_its_handler(service: Make) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    class Slow:
        async def wait(self) -> None:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with service("slow", Slow()) as slow:
        call = asyncio.create_task(slow.client.call("slow", "Slow.Wait"))
        await running.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_handler_may_be_cancelled_from_inside(service: Make) -> None:
    class Odd:
        async def run(self) -> None:
            raise asyncio.CancelledError

        async def fine(self) -> int:
            return 1

    async with service("odd", Odd()) as odd:
        with pytest.raises(errors.InternalServerError):
            await odd.client.call("odd", "Odd.Run")
        assert await odd.client.call("odd", "Odd.Fine") == 1


async def test_metadata_and_context(service: Make) -> None:
    class Look:
        async def look(self) -> dict[str, str]:
            found = context()
            assert found.service == "look"
            assert found.endpoint == "Look.Look"
            assert found.peer
            return dict(found.metadata)

    async with service("look", Look()) as look:
        with call_options(metadata={"X-Tenant": "acme"}), call_options(metadata={"X-User": "ann"}):
            seen = await look.client.call("look", "Look.Look")
        assert seen == {"X-Tenant": "acme", "X-User": "ann"}
        with pytest.raises(ValueError, match="reserved"):
            await look.client.call("look", "Look.Look", metadata={"Micro-Id": "1"})
    with pytest.raises(errors.UsageError):
        context()


async def test_only_trace_and_marked_metadata_travel_on(service: Make) -> None:
    inner = service("inner.client")

    class Last:
        async def look(self) -> dict[str, str]:
            return dict(context().metadata)

    class First:
        async def look(self) -> dict[str, str]:
            found: dict[str, str] = await inner.client.call("last", "Last.Look")
            return found

    async with service("last", Last()), inner, service("first", First()) as first:
        private = {"Authorization": "Bearer x", "traceparent": "00-1-2-01", "X-Private": "1"}
        with call_options(metadata=private), call_options(metadata={"X-Tenant": "acme"}, propagate=True):
            seen = await first.client.call("first", "First.Look")
    assert seen == {"traceparent": "00-1-2-01", "X-Tenant": "acme", "Propagate": "X-Tenant"}


async def test_context_variables_do_not_leak_between_calls(service: Make) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")

    class Leaky:
        async def run(self) -> str:
            before = variable.get()
            variable.set("dirty")
            await asyncio.sleep(0)
            assert variable.get() == "dirty"
            return before

    async with service("leaky", Leaky()) as leaky:
        assert [await leaky.client.call("leaky", "Leaky.Run") for _ in range(3)] == ["clean"] * 3


async def test_middleware_wraps_calls_the_first_outermost(service: Make) -> None:
    order: list[str] = []

    def layer(name: str) -> Any:
        async def middleware(request: Request, next: Call) -> Response:
            order.append(f"{name} in")
            response = await next(request)
            order.append(f"{name} out")
            return response

        return middleware

    greeter, caller = service("greeter", Greeter()), service("caller")
    greeter.use(calls=[layer("a"), layer("b")])
    caller.client.use(calls=[layer("call")], attempts=[layer("attempt")])
    async with greeter, caller:
        await caller.client.call("greeter", "Greeter.Hello", {"name": "x"})
    assert order == ["call in", "attempt in", "a in", "b in", "b out", "a out", "attempt out", "call out"]


async def test_middleware_may_refuse_change_and_add(service: Make) -> None:
    async def guard(request: Request, next: Call) -> Response:
        if request.headers.get("X-Token") != "good":
            raise errors.Unauthorized("who are you?")
        request.body.name = request.body.name.upper()
        return await next(request)

    async def sign(request: Request, next: Call) -> Response:
        request.add_metadata({"X-Token": "good"})
        return await next(request)

    greeter, caller = service("greeter", Greeter()), service("caller")
    greeter.use(calls=[guard])
    caller.client.use(calls=[sign])
    async with greeter, caller:
        assert await caller.client.call("greeter", "Greeter.Hello", {"name": "x"}) == {"text": "Hello X"}
        with pytest.raises(errors.Unauthorized, match="who are you"):
            await greeter.client.call("greeter", "Greeter.Hello", {"name": "x"})


async def test_an_attempt_that_reached_nobody_goes_to_another_node(service: Make, mesh: Any) -> None:
    one, two = service("greeter", Greeter()), service("greeter", Greeter())
    async with one, two, service("caller") as caller:
        assert one.server.node is not None
        mesh.network.release(one.server.node.address)  # the port is closed, the registry does not know yet
        for _ in range(20):
            assert await caller.client.call("greeter", "Greeter.Hello", {"name": "x"}) == {"text": "Hello x"}


async def test_an_unreachable_service_names_nodes_and_causes(service: Make, mesh: Any) -> None:
    async with service("greeter", Greeter()) as one, service("caller", client_retries=1) as caller:
        node = one.server.node
        assert node is not None
        mesh.network.release(node.address)
        with pytest.raises(errors.Unavailable) as caught:
            await caller.client.call("greeter", "Greeter.Hello", {"name": "x"})
        assert node.id in caught.value.detail
        assert "nobody listens" in caught.value.detail
        assert caught.value.executed == "no"


class Flaky:
    def __init__(self) -> None:
        self.runs = 0

    async def once(self) -> int:
        return await self._run()

    @endpoint(idempotent=True)
    async def again(self) -> int:
        return await self._run()

    async def _run(self) -> int:
        self.runs += 1
        if self.runs == 1:
            raise errors.Unavailable("try later")
        return self.runs


async def test_only_idempotent_endpoints_are_repeated_after_they_ran(service: Make) -> None:
    flaky = Flaky()
    async with service("flaky", flaky) as served:
        stub = served.client.stub("flaky", Flaky)
        with pytest.raises(errors.Unavailable):
            await stub.once()
        flaky.runs = 0
        assert await stub.again() == 2


async def test_requests_over_the_limit_get_429(service: Make) -> None:
    gate = asyncio.Event()

    class Slow:
        async def wait(self) -> None:
            await gate.wait()

    async with service("slow", Slow(), server_max_requests=2) as slow, service("caller", client_retries=0) as caller:
        calls = [asyncio.create_task(caller.client.call("slow", "Slow.Wait")) for _ in range(2)]
        await until(lambda: slow.server.in_flight == 2)
        with pytest.raises(errors.TooManyRequests):
            await caller.client.call("slow", "Slow.Wait")
        assert (await caller.client.call("slow", "Debug.Health"))["status"] == "ok"
        gate.set()
        await asyncio.gather(*calls)


async def test_connections_over_the_limit_get_503(service: Make) -> None:
    gate = asyncio.Event()

    class Slow:
        async def wait(self) -> None:
            await gate.wait()

    one = service("slow", Slow(), server_max_connections=1)
    async with one, service("caller", client_retries=0) as caller:
        call = asyncio.create_task(caller.client.call("slow", "Slow.Wait"))
        await until(lambda: one.server.in_flight == 1)
        with pytest.raises(errors.Unavailable, match="limit"):
            await caller.client.call("slow", "Slow.Wait")
        gate.set()
        await call


async def test_messages_over_the_limit_get_413(service: Make) -> None:
    async with service("greeter", Greeter(), max_message_size=1000) as small, service("caller") as caller:
        with pytest.raises(errors.TooLarge):
            await small.client.call("greeter", "Greeter.Raw", b"x" * 2000, response=bytes)
        assert await caller.client.call("greeter", "Greeter.Hello", {"name": "x"}) == {"text": "Hello x"}


async def test_stopping_finishes_what_is_in_flight(service: Make) -> None:
    running, gate = asyncio.Event(), asyncio.Event()

    class Slow:
        async def wait(self) -> str:
            running.set()
            await gate.wait()
            return "done"

    slow = service("slow", Slow())
    await slow.start()
    async with service("caller") as caller:
        call = asyncio.create_task(caller.client.call("slow", "Slow.Wait"))
        await running.wait()
        stop = asyncio.create_task(slow.stop())
        await until(lambda: slow.server.draining)
        assert (await slow.health()).status == "draining"
        gate.set()
        assert await call == "done"
        await stop
        with pytest.raises(errors.Unavailable):
            await caller.client.call("slow", "Slow.Wait")


async def test_a_second_request_to_stop_cuts_off(service: Make) -> None:
    running = asyncio.Event()

    class Slow:
        async def wait(self) -> None:
            running.set()
            await asyncio.Event().wait()

    slow = service("slow", Slow())
    await slow.start()
    async with service("caller", client_retries=0) as caller:
        call = asyncio.create_task(caller.client.call("slow", "Slow.Wait"))
        await running.wait()
        stop = asyncio.create_task(slow.stop())
        await until(lambda: slow.server.draining)
        stop.cancel()
        await asyncio.wait([stop])
        with pytest.raises(errors.Unavailable):
            await call


async def test_health_and_stats_are_served(service: Make) -> None:
    async with service("greeter", Greeter()) as greeter:
        assert await greeter.client.call("greeter", "Debug.Health") == {"status": "ok", "reasons": {}}
        stats = await greeter.client.call("greeter", "Debug.Stats")
        assert stats["requests"] >= 2
        assert stats["memory"] > 0


async def test_a_failing_check_withdraws_the_node(mesh: Any) -> None:
    from pymicro_testing import ManualClock

    clock = ManualClock()
    sound = False

    async def probe() -> None:
        if not sound:
            raise OSError("disk full")

    service = mesh.service("greeter", Greeter(), clock=clock)
    service.check("disk", probe)
    async with service:
        health = await service.health()
        assert health.status == "failing"
        assert "disk full" in health.reasons["disk"]
        assert not await mesh.registered("greeter", clock)
        sound = True
        await clock.advance(31)
        assert (await service.health()).status == "ok"
        assert await mesh.registered("greeter", clock)


def test_two_handlers_of_one_name_are_refused(service: Make) -> None:
    one = service("greeter", Greeter())
    with pytest.raises(errors.InvalidHandler, match="two handlers are called 'Greeter'"):
        one.handle(Greeter())
    one.handle(Greeter(), name="Second")


def test_signatures_that_cannot_be_served_are_named(service: Make) -> None:
    class NoAnnotation:
        async def run(self, request):  # type: ignore[no-untyped-def]  # the mistake under test
            return request

    class TooMany:
        async def run(self, a: int, b: int) -> int:
            return a + b

    class Unresolvable:
        async def run(self, request: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821 - the mistake under test
            return None

    class Empty: ...

    one = service("x")
    with pytest.raises(errors.InvalidHandler, match=r"NoAnnotation.run: parameter 'request' has no annotation"):
        one.handle(NoAnnotation())
    with pytest.raises(errors.InvalidHandler, match=r"TooMany.run.*at most one parameter"):
        one.handle(TooMany())
    with pytest.raises(errors.InvalidHandler, match=r"Unresolvable.run: the annotation of request cannot be resolved"):
        one.handle(Unresolvable())
    with pytest.raises(errors.InvalidHandler, match="no public method"):
        one.handle(Empty())
    with pytest.raises(errors.InvalidHandler, match="takes an object"):
        one.handle(Greeter)


class Abstract(ABC):
    @abstractmethod
    @endpoint(name="Greet", idempotent=True, timeout=3.0)
    async def hello(self, request: Hello) -> Greeting: ...


class Concrete(Abstract):
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    async def hello(self, request: Hello) -> Greeting:
        return Greeting(self.prefix + request.name)

    async def unrelated(self, request: Hello) -> Greeting:
        return Greeting("")


async def test_an_interface_names_the_endpoints(mesh: Any) -> None:
    one = mesh.service("greeter")
    one.handle(Concrete("Hi "), interface=Abstract)
    async with one:
        assert await one.client.stub("greeter", Abstract).hello(Hello("A")) == Greeting("Hi A")
        records = await mesh.registered("greeter")
        assert [each.name for each in records[0].endpoints] == ["Abstract.Greet"]


def test_an_object_that_does_not_fit_its_interface_is_refused(service: Make) -> None:
    class Other:
        pass

    with pytest.raises(errors.InvalidHandler, match="has no method hello"):
        service("x").handle(Other(), interface=Abstract)


def test_a_stub_refuses_plain_methods(service: Make) -> None:
    with pytest.raises(errors.InvalidHandler, match=r"Greeter.plain is a plain def method"):
        service("x").client.stub("greeter", Greeter)


async def test_a_closed_client_says_so(service: Make) -> None:
    with pytest.raises(errors.Closed, match="not open"):
        await service("x").client.call("a", "A.B")


async def test_an_error_of_an_inner_call_does_not_promise_that_the_outer_handler_did_not_run(service: Make) -> None:
    runs = 0
    inner = service("inner.client")

    class Front:
        async def run(self) -> None:
            nonlocal runs
            runs += 1
            await inner.client.call("nobody", "A.B")

    async with inner, service("front", Front()), service("front", Front()) as front:
        with pytest.raises(errors.Unavailable) as caught:
            await front.client.call("front", "Front.Run")
    assert caught.value.executed == "maybe"
    assert runs == 1


async def test_middleware_tells_the_handler_who_calls(service: Make) -> None:
    async def authenticate(request: Request, next: Call) -> Response:
        request.account = "ann"
        return await next(request)

    class Who:
        async def am_i(self) -> str:
            return str(context().account)

    who = service("who", Who())
    who.use(calls=[authenticate])
    async with who:
        assert await who.client.call("who", "Who.AmI") == "ann"
