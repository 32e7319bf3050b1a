"""The four shapes of an endpoint."""

from collections.abc import AsyncIterator

from pymicro import Service


class Numbers:
    async def square(self, number: int) -> int:
        return number * number

    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(1, upto + 1):
            yield number

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    async def running_total(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        total = 0
        async for number in numbers:
            total += number
            yield total


service = Service("numbers")
service.handle(Numbers())

if __name__ == "__main__":
    service.run()
