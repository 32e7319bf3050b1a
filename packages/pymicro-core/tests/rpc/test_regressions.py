"""Defects that once were: each test failed before the code was mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pymicro import Request, Response, Service, call_options, context, endpoint, errors
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.record import Node
from pymicro.rpc import Call, error_of
from pymicro.transport import MemoryTransport, Socket
from pymicro_testing import ManualClock

Make = Callable[..., Service]


@asynccontextmanager
async def raw(mesh: Any, service: Service) -> AsyncIterator[Socket]:
    async with MemoryTransport(network=mesh.network) as transport:
        assert service.server.node is not None
        socket = await transport.dial(Node("raw", service.server.node.address), timeout=1)
        yield socket
        await socket.aclose()


def message(endpoint: str, body: bytes = b"{}", **more: str) -> Message:
    head = {"Content-Type": "application/json", "Micro-Endpoint": endpoint, "Micro-Id": "7"}
    return Message(Headers({**head, **{name.replace("_", "-"): value for name, value in more.items()}}), body)


async def ask(socket: Socket, *messages: Message) -> Message:
    for each in messages:
        await socket.send(each)
    return await asyncio.wait_for(socket.recv(), 3)


# deadlines and cancellation


async def test_clean_up_of_a_cancelled_task_may_call_within_a_deadline(service: Make) -> None:
    class Slow:
        async def wait(self) -> None:
            await asyncio.Event().wait()

    caught: list[BaseException] = []

    async with service("slow", Slow()) as slow:

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                try:
                    await slow.client.call("slow", "Slow.Wait", timeout=0.02)
                except BaseException as error:
                    caught.append(error)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert isinstance(caught[0], errors.DeadlineExceeded)
    assert task.cancelled()


async def test_a_deadline_that_a_handler_swallowed_does_not_harm_the_next_call(service: Make, mesh: Any) -> None:
    class Stubborn:
        async def swallow(self) -> str:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "late"

        async def translate(self) -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise errors.Conflict("given up") from None
            return ""

        async def wait(self) -> None:
            await asyncio.Event().wait()

    async with service("s", Stubborn()) as one, raw(mesh, one) as socket:
        assert (await ask(socket, message("Stubborn.Swallow", Timeout="10000000"))).body == b'"late"\n'
        error = error_of((await ask(socket, message("Stubborn.Translate", Timeout="10000000"))).headers)
        assert isinstance(error, errors.Conflict)
        error = error_of((await ask(socket, message("Stubborn.Wait", Timeout="10000000"))).headers)
        assert isinstance(error, errors.DeadlineExceeded)


async def test_a_deadline_that_middleware_swallowed_leaves_the_task_uncancelled(service: Make) -> None:
    class Slow:
        async def wait(self) -> None:
            await asyncio.Event().wait()

    async def fallback(request: Request, next: Call) -> Response:
        try:
            return await next(request)
        except asyncio.CancelledError:
            return Response("fallback")

    slow = service("slow", Slow())
    slow.client.use(calls=[fallback])
    async with slow:
        assert await slow.client.call("slow", "Slow.Wait", timeout=0.01) == "fallback"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_deadline_and_a_cancellation_at_once_are_a_cancellation(service: Make) -> None:
    class Slow:
        async def wait(self) -> None:
            await asyncio.Event().wait()

    async with service("slow", Slow()) as slow:
        loop = asyncio.get_running_loop()
        for offset in (-0.0001, 0.0, 0.0001):
            call = asyncio.create_task(slow.client.call("slow", "Slow.Wait", timeout=0.02))
            await asyncio.sleep(0)
            loop.call_later(0.02 + offset, call.cancel)
            loop.call_later(0.0, lambda: None)
            await asyncio.wait([call])
            if not call.cancelled():
                assert isinstance(call.exception(), errors.DeadlineExceeded)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.02):
                await slow.client.call("slow", "Slow.Wait", timeout=0.02)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, caught


# retries


async def test_a_handler_that_ran_is_never_said_not_to_have_run(service: Make) -> None:
    class Busy:
        runs = 0

        async def refuse(self) -> None:
            self.runs += 1
            raise errors.TooManyRequests("slow down")

        def plain(self) -> None:
            self.runs += 1
            raise errors.Unavailable("later", executed="no")

    busy = Busy()
    async with service("busy", busy) as one:
        for name in ("Refuse", "Plain"):
            busy.runs = 0
            with pytest.raises(errors.Error) as caught:
                await one.client.call("busy", f"Busy.{name}")
            assert (busy.runs, caught.value.executed) == (1, "maybe")


async def test_a_failed_call_inside_a_handler_does_not_repeat_the_handler(service: Make) -> None:
    inner = service("inner.client")

    class Front:
        runs = 0

        async def order(self) -> None:
            self.runs += 1
            await inner.client.call("nobody", "A.B")

    front = Front()
    async with inner, service("front", front) as one:
        with pytest.raises(errors.Unavailable):
            await one.client.call("front", "Front.Order")
    assert front.runs == 1


async def test_middleware_that_refuses_may_say_that_nothing_ran(service: Make) -> None:
    seen = 0

    class Greeter:
        async def hello(self) -> str:
            return "hello"

    async def shed(request: Request, next: Call) -> Response:
        nonlocal seen
        seen += 1
        if seen < 3:
            raise errors.TooManyRequests("shed")
        return await next(request)

    one = service("greeter", Greeter())
    one.use(calls=[shed])
    async with one:
        assert await one.client.call("greeter", "Greeter.Hello") == "hello"


async def test_errors_of_streams_say_that_the_handler_ran(service: Make) -> None:
    class Big:
        async def run(self) -> AsyncIterator[bytes]:
            yield b"x" * 2000

    async with service("big", Big(), max_message_size=1000) as one:
        with pytest.raises(errors.TooLarge) as caught:
            async for _ in one.client.stub("big", Big).run():  # type: ignore[attr-defined]
                pass
        assert caught.value.executed == "maybe"


async def test_a_service_that_vanishes_between_attempts_keeps_the_cause(service: Make, mesh: Any) -> None:
    class Greeter:
        @endpoint(idempotent=True)
        async def hello(self) -> str:
            started.set()
            await asyncio.Event().wait()
            return ""

    started = asyncio.Event()
    one = service("greeter", Greeter(), shutdown_timeout=0.0)
    await one.start()
    async with service("caller") as caller:
        call = asyncio.create_task(caller.client.stub("greeter", Greeter).hello())
        await started.wait()
        await one.stop()
        with pytest.raises(errors.Unavailable) as caught:
            await asyncio.wait_for(call, 5)
        assert caught.value.executed == "maybe"
        assert "closed" in caught.value.detail


# errors that cannot be written


class Forgetful(errors.Conflict):
    item: str

    def __init__(self, item: str) -> None:
        self.item = item


class Odd(errors.Conflict):
    what: Any

    def __init__(self, what: Any) -> None:
        super().__init__("odd")
        self.what = what


class Failing:
    async def surrogate(self) -> None:
        raise errors.NotFound("no file \udcff")

    async def exception(self) -> None:
        raise errors.NotFound(KeyError("x"))  # type: ignore[arg-type]

    async def forgetful(self) -> None:
        raise Forgetful("tea")

    async def huge(self) -> None:
        raise errors.NotFound("x" * 100_000)

    async def number(self) -> None:
        raise Odd(2**80)

    async def keys(self) -> None:
        raise Odd({(1, 2): 3})

    async def text(self) -> None:
        raise Odd("\udcff")

    async def local(self) -> None:
        class Inner: ...

        class Local(errors.Conflict):
            field: Inner

        raise Local("local")

    async def wide(self) -> None:
        raise Odd("x" * 100_000)

    async def fine(self) -> str:
        return "fine"


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("Surrogate", 404),
        ("Exception", 404),
        ("Forgetful", 409),
        ("Huge", 404),
        ("Number", 409),
        ("Keys", 409),
        ("Text", 409),
        ("Local", 409),
        ("Wide", 409),
    ],
)
async def test_an_error_that_is_hard_to_write_still_arrives(service: Make, method: str, code: int) -> None:
    async with service("failing", Failing()) as one:
        with pytest.raises(errors.BY_CODE[code]):
            await one.client.call("failing", f"Failing.{method}", timeout=3)
        assert await one.client.call("failing", "Failing.Fine") == "fine"


async def test_a_hostile_error_text_is_an_error_of_the_call(mesh: Any) -> None:
    deep = '{"a":' * 20_000
    assert error_of(Headers({"Micro-Error": deep})) is not None
    found = error_of(Headers({"Micro-Error": '{"code":409}', "Micro-Error-Type": "Odd", "Micro-Error-Fields": deep}))
    assert isinstance(found, errors.Conflict)


# hostile input


class Echo:
    async def say(self, text: str) -> str:
        return text

    async def any(self, value: Any) -> Any:
        return value

    async def nothing(self) -> None:
        return None


HOSTILE = {
    "no endpoint": {"Micro-Endpoint": ""},
    "no method": {"Micro-Endpoint": "Echo"},
    "dots": {"Micro-Endpoint": "." * 5000},
    "other alphabet": {"Micro-Endpoint": "Échö.日本\udcff"},
    "control": {"Micro-Endpoint": "Echo.Say\r\nMicro-Error: EOS"},
    "type": {"Content-Type": "application/nonsense\udcff"},
    "target": {"Micro-Target": "x"},
    "legacy": {"Micro-Endpoint": "", "Content-Type": "application/json-rpc"},
    "legacy proto": {"Micro-Endpoint": "", "Content-Type": "application/octet-stream"},
    "legacy proto 2": {"Micro-Endpoint": "", "Content-Type": "application/protobuf"},
    "timeout": {"Timeout": "-1"},
    "timeout 2": {"Timeout": "٣"},
    "timeout 3": {"Timeout": "9" * 20},
    "timeout 4": {"Timeout": "9" * 5000},
    "timeout 5": {"Timeout": "1e400"},
    "topic": {"Micro-Topic": "x" * 5000},
    "id": {"Micro-Id": "\udcff" * 50},
    "stream": {"Micro-Stream": "x"},
    "propagate": {"Propagate": ",,,Micro-Id,\udcff,Content-Type"},
    "connection": {"Connection": "CLOSE"},
}
BODIES = [
    b"",
    b'"x"',
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b"\xff\xfe",
    b"9" * 10_000,
    b'{"id":' + b"9" * 10_000 + b',"method":"Echo.Any","params":[1]}',
    b'{"id":1e999,"method":"Echo.Any","params":[1]}',
    b'{"id":1,"method":"Echo.Any","params":[' + b"[" * 10_000,
    b'{"id":1,"method":"Echo.Any","params":{}}',
    b'{"id":1,"method":"","params":[]}',
    b'"\\ud800"',
    b"NaN",
    b"\x00" * 20,
    b"\xff" * 20,
]


@pytest.mark.parametrize("which", HOSTILE)
async def test_hostile_requests_are_answered(
    service: Make, mesh: Any, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    async with service("echo", Echo()) as one:
        for endpoint_name in ("Echo.Say", "Echo.Any", "Echo.Nothing", "Debug.Health"):
            for body in BODIES:
                async with raw(mesh, one) as socket:
                    head = {"Micro-Endpoint": endpoint_name, "Micro-Id": "1", "Content-Type": "application/json"}
                    reply = await ask(socket, Message(Headers({**head, **HOSTILE[which]}), body))
                    assert reply.headers is not None
    assert not [record.getMessage() for record in caplog.records if "connection failed" in record.getMessage()]


async def test_content_types_with_parameters_take_no_memory(service: Make, mesh: Any) -> None:
    import gc

    from pymicro.server._endpoints import Binding

    async with service("echo", Echo()) as one, raw(mesh, one) as socket:
        for number in range(500):
            reply = await ask(socket, message("Echo.Any", Content_Type=f"application/json; n={number}"))
            assert not reply.headers.get("Micro-Error")
        assert sum(isinstance(each, Binding) for each in gc.get_objects()) < 100


async def test_marked_metadata_travels_once(service: Make, mesh: Any) -> None:
    seen: list[int] = []

    class Look:
        async def look(self) -> None:
            from pymicro.rpc import current, propagated_by

            found = current.get()
            assert found is not None
            seen.append(len(propagated_by(found)))

    async with service("look", Look()) as one, raw(mesh, one) as socket:
        await ask(socket, message("Look.Look", Propagate="X-A," * 1000, X_A="1" * 1000))
    assert seen == [2]


# metadata


class Look:
    async def look(self) -> dict[str, str]:
        return dict(context().metadata)


async def test_the_nearest_metadata_wins(service: Make) -> None:
    async with service("look", Look()) as one:
        with call_options(metadata={"X-A": "outer", "X-B": "outer"}), call_options(metadata={"x-a": "inner"}):
            stub = await one.client.call("look", "Look.Look", metadata={"X-B": "call"})
    assert {name.lower(): value for name, value in stub.items()} == {"x-a": "inner", "x-b": "call"}


async def test_nested_marks_all_travel_on(service: Make) -> None:
    inner = service("inner.client")

    class First:
        async def look(self) -> dict[str, str]:
            with call_options(metadata={"X-C": "3"}, propagate=True):
                found: dict[str, str] = await inner.client.call("second", "Second.Look")
            return found

    class Second:
        async def look(self) -> dict[str, str]:
            found: dict[str, str] = await inner.client.call("look", "Look.Look")
            return found

    async with service("look", Look()), inner, service("second", Second()), service("first", First()) as one:
        with call_options(metadata={"X-A": "1"}, propagate=True), call_options(metadata={"X-B": "2"}, propagate=True):
            seen = await one.client.call("first", "First.Look")
    assert {name: value for name, value in seen.items() if name != "Propagate"} == {"X-A": "1", "X-B": "2", "X-C": "3"}


@pytest.mark.parametrize("name", ["Expect", "Upgrade", "Trailer", "TE", "Content-Encoding", "Keep-Alive"])
async def test_metadata_cannot_describe_the_connection(service: Make, name: str) -> None:
    with pytest.raises(ValueError, match="reserved"), call_options(metadata={name: "x"}):
        pass


# limits


async def test_streams_are_counted_apart_from_calls(service: Make) -> None:
    class Numbers:
        async def forever(self) -> AsyncIterator[int]:
            while True:
                yield 1
                await asyncio.sleep(0)

        async def one(self) -> int:
            return 1

    async with service("numbers", Numbers(), server_max_requests=1, client_retries=0) as one:
        stub = one.client.stub("numbers", Numbers)
        stream = stub.forever()  # type: ignore[attr-defined]
        await anext(stream)
        assert await stub.one() == 1
        await stream.aclose()


async def test_calls_that_ended_leave_no_timers(service: Make) -> None:
    clock = ManualClock()
    async with service("echo", Echo(), clock=clock) as one:
        say = one.client.stub("echo", Echo).say
        await say("hello")
        before = clock.pending

        for _ in range(100):
            await clock.advance(0.06)
            await say("hello")

        assert clock.pending <= before + 2


async def test_connections_over_the_limit_are_closed_in_time(service: Make, mesh: Any) -> None:
    clock = ManualClock()
    async with service("echo", Echo(), server_max_connections=1, clock=clock) as one, raw(mesh, one) as first:
        await ask(first, message("Echo.Any"))
        async with raw(mesh, one) as second:
            reply = await ask(second, message("Echo.Any"))
            assert reply.headers.get("Connection") == "close"
        async with raw(mesh, one) as third:
            waiting = asyncio.create_task(third.recv())
            await asyncio.sleep(0)
            await clock.advance(60)
            with pytest.raises(errors.Disconnected):
                await asyncio.wait_for(waiting, 1)


# events


async def test_a_subscriber_cancelled_from_inside_is_an_error_of_the_event(service: Make, mesh: Any) -> None:
    async def odd(event: int) -> None:
        raise asyncio.CancelledError

    one = service("events")
    one.subscribe("odd", odd)
    async with one, raw(mesh, one) as socket:
        error = error_of((await ask(socket, message("", b"1", Micro_Topic="odd"))).headers)
        assert isinstance(error, errors.InternalServerError)


async def test_a_task_that_a_handler_leaves_behind_is_not_bound_by_the_deadline_of_the_call(service: Make) -> None:
    clock = ManualClock()
    go, asked, answer = asyncio.Event(), asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    class Starter:
        async def start(self) -> None:
            tasks.append(asyncio.create_task(self.work()))

        async def work(self) -> str:
            await go.wait()
            return await one.client.call("starter", "Starter.Slow", response=str)  # type: ignore[no-any-return]

        async def slow(self) -> str:
            asked.set()
            await answer.wait()
            return "done"

    async with service("starter", Starter(), clock=clock) as one:
        await one.client.call("starter", "Starter.Start", timeout=2)
        await clock.advance(60)
        go.set()
        await asyncio.wait_for(asked.wait(), 5)
        await clock.advance(5)
        answer.set()
        assert await asyncio.wait_for(tasks[0], 5) == "done"


async def test_no_error_is_its_own_cause(service: Any) -> None:
    class Greeter:
        async def hello(self) -> None: ...

    async with service("greeter", Greeter()), service("caller") as caller:
        with pytest.raises(errors.NotFound) as caught:
            await caller.client.call("greeter", "Greeter.Nothing")
    assert caught.value.__cause__ is not caught.value
