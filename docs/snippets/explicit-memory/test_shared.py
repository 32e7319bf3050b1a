from pymicro import Service
from pymicro.registry import MemoryCatalog, MemoryRegistry
from pymicro.transport import MemoryNetwork, MemoryTransport

# region shared
catalog, network = MemoryCatalog(), MemoryNetwork()


def service(name: str) -> Service:
    return Service(
        name,
        registry=lambda build: MemoryRegistry(None, build, catalog=catalog),
        transport=lambda build: MemoryTransport(None, build, network=network),
    )


# endregion


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"


async def test_services_in_memory_meet_where_they_are_told_to() -> None:
    greeter = service("greeter")
    greeter.handle(Greeter())
    async with greeter, service("caller") as caller:
        assert await caller.client.stub("greeter", Greeter).hello("John") == "Hello John"
