"""Tests of a user's services: the fixtures of the plugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from pymicro import Service, context, errors
from pymicro_testing import FaultProxy, ManualClock, Mesh
from pymicro_testing import fake as make_fake
from pymicro_testing import no_leaks as check_leaks


@dataclass
class User:
    name: str


@dataclass
class UserRequest:
    id: int


@dataclass
class Signup:
    user: str


class Users(Protocol):
    async def get(self, request: UserRequest) -> User: ...
    def everybody(self, request: UserRequest) -> AsyncIterator[User]: ...
    async def add(self, requests: AsyncIterator[User]) -> UserRequest: ...
    async def count(self) -> int: ...


class Greeter:
    def __init__(self, users: Users, service: Service | None = None) -> None:
        self._users = users
        self._service = service

    async def hello(self, request: UserRequest) -> str:
        if request.id < 0:
            raise errors.BadRequest("ids are positive", id="greeter")
        user = await self._users.get(request)
        if self._service is not None:
            await self._service.publish("greeted", Signup(user.name))
        return f"Hello {user.name}"

    async def everybody(self, request: UserRequest) -> AsyncIterator[str]:
        async for user in self._users.everybody(request):
            yield user.name

    async def forever(self, request: UserRequest) -> str:
        await asyncio.Event().wait()
        return ""


async def test_a_handler_is_served(serve: Callable[..., Any], fake: Callable[..., Any]) -> None:
    users = fake(Users, get=User("John"))
    async with serve(Greeter(users)) as greeter:
        assert await greeter.hello(UserRequest(1)) == "Hello John"
        with pytest.raises(errors.BadRequest, match="ids are positive"):
            await greeter.hello(UserRequest(-1))
    assert users.calls == [("get", UserRequest(1))]


async def test_a_stream_is_served(serve: Callable[..., Any]) -> None:
    users = make_fake(Users, everybody=[User("a"), User("b")])
    async with check_leaks(), serve(Greeter(users)) as greeter:
        assert [name async for name in greeter.everybody(UserRequest(1))] == ["a", "b"]


async def test_several_handlers_are_served(mesh: Mesh) -> None:
    class Echo:
        async def say(self, text: str) -> str:
            return f"{text} {context().metadata.get('X-Tenant', '')}".strip()

    async with mesh.serve(Echo(), Greeter(make_fake(Users, get=User("John")))) as (echo, greeter):
        assert await echo.say("hi") == "hi"
        assert await greeter.hello(UserRequest(1)) == "Hello John"


async def test_neighbours_are_faked_and_events_seen(mesh: Mesh, published: Callable[..., Any]) -> None:
    users = mesh.fake("users", Users, get=lambda request: User(f"user {request.id}"))
    service = mesh.service("greeter")
    service.handle(Greeter(service.client.stub("users", Users), service))
    async with check_leaks(), mesh.run() as client:
        greeter = client.stub("greeter", Greeter)
        assert await greeter.hello(UserRequest(7)) == "Hello user 7"
    assert users.calls == [("get", UserRequest(7))]
    assert published("greeted", Signup) == [Signup("user 7")]
    assert [message.headers["Content-Type"] for message in published("greeted")] == ["application/json"]
    assert published("nothing") == []


async def test_events_reach_subscribers_of_the_mesh(mesh: Mesh) -> None:
    heard: asyncio.Queue[Signup] = asyncio.Queue()
    listener, speaker = mesh.service("listener"), mesh.service("speaker")

    async def hear(event: Signup) -> None:
        heard.put_nowait(event)

    listener.subscribe("signups", hear)
    async with mesh.run(listener, speaker):
        await speaker.publish("signups", Signup("John"))
        assert await heard.get() == Signup("John")


async def test_two_meshes_do_not_see_each_other() -> None:
    one, other = Mesh(), Mesh()
    one.fake("users", Users, get=User("John"))
    other.service("lonely")
    async with one.run() as here, other.run() as there:
        assert await here.stub("users", Users).get(UserRequest(1)) == User("John")
        with pytest.raises(errors.NoNode):
            await there.stub("users", Users).get(UserRequest(1))


async def test_time_passes_when_the_test_says_so(mesh: Mesh, clock: ManualClock) -> None:
    mesh.service("greeter").handle(Greeter(make_fake(Users)))
    async with mesh.run() as client:
        calling = asyncio.ensure_future(client.stub("greeter", Greeter).forever(UserRequest(1)))
        await clock.advance(29.0)
        assert not calling.done()
        await clock.advance(2.0)
        with pytest.raises(errors.DeadlineExceeded):
            await calling


async def test_five_services_in_one_process(mesh: Mesh) -> None:
    for number in range(5):
        mesh.fake(f"users-{number}", Users, get=User(str(number)))
    async with check_leaks(), mesh.run() as client:
        stubs = [client.stub(f"users-{number}", Users) for number in range(5)]
        names = [(await stubs[number % 5].get(UserRequest(number))).name for number in range(100)]
    assert names == [str(number % 5) for number in range(100)]


async def test_a_fake_answers_in_every_shape(mesh: Mesh) -> None:
    async def add(requests: AsyncIterator[User]) -> UserRequest:
        return UserRequest(len([user async for user in requests]))

    async def everybody(request: UserRequest) -> AsyncIterator[User]:
        for number in range(request.id):
            yield User(str(number))

    async def users() -> AsyncIterator[User]:
        yield User("a")
        yield User("b")

    busy = mesh.fake("busy", Users, add=add, everybody=everybody, count=3)
    fixed = mesh.fake("fixed", Users, add=UserRequest(0), get=errors.NotFound("no such user"))
    async with check_leaks(), mesh.run() as client:
        stub = client.stub("busy", Users)
        assert await stub.add(users()) == UserRequest(2)
        assert [user.name async for user in stub.everybody(UserRequest(2))] == ["0", "1"]
        assert await stub.count() == 3
        assert await client.stub("fixed", Users).add(users()) == UserRequest(0)
        with pytest.raises(errors.NotFound, match="no such user"):
            await client.stub("fixed", Users).get(UserRequest(1))
        with pytest.raises(errors.Unimplemented, match=r"fake\(\.\.\., get=\.\.\.\)"):
            await stub.get(UserRequest(1))
    both = [User("a"), User("b")]
    assert busy.calls == [("add", both), ("everybody", UserRequest(2)), ("count", None), ("get", UserRequest(1))]
    assert fixed.calls == [("add", both), ("get", UserRequest(1))]


async def test_a_fake_knows_its_interface() -> None:
    with pytest.raises(errors.UsageError, match="Users has no method gte: it has"):
        make_fake(Users, gte=User("John"))


async def test_faults_and_leaks_are_at_hand(faults: type[FaultProxy], no_leaks: Callable[..., Any]) -> None:
    async with no_leaks(), faults("127.0.0.1:1") as proxy:
        assert proxy.connections == 0


def test_pytest_starts_without_loading_pymicro(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "pymicro" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_fixtures_work_without_a_plugin_for_async_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio

        class Echo:
            async def say(self, text: str) -> str:
                return text

        def test_echo(serve):
            async def run():
                async with serve(Echo()) as echo:
                    return await echo.say("hi")

            assert asyncio.run(run()) == "hi"
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
