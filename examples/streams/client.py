from collections.abc import AsyncIterator

from numbers_service import Numbers
from pymicro import Service

service = Service("numbers.client")


async def primes() -> AsyncIterator[int]:
    for prime in (2, 3, 5, 7):
        yield prime


async def main() -> None:
    numbers = service.client.stub("numbers", Numbers)  # the same signatures as the handler's
    print("square:", await numbers.square(12))
    print("count:", *[number async for number in numbers.count(5)])
    print("total:", await numbers.total(primes()))
    print("running total:", *[total async for total in numbers.running_total(primes())])

    async for number in numbers.count(1_000_000_000):
        if number == 3:
            break  # leaving the loop ends the handler, too
    print("left after", number)


if __name__ == "__main__":
    service.run(main)
