"""Two services in two event loops in two threads, which call each other; prints how many answers each got."""

import asyncio
import os
import sys
import threading

from pymicro import Service

CALLS = 2000
AT_A_TIME = 20


class Echo:
    async def say(self, text: str) -> str:
        return text


async def call(service: Service, other: str) -> int:
    echo = service.client.stub(other, Echo)
    numbers = iter(range(CALLS))
    answers = []

    async def caller() -> None:
        for number in numbers:
            answers.append(await echo.say(f"{service.name} {number}"))

    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))
    return len(set(answers))


async def main(name: str, other: str, both: threading.Barrier, answers: dict[str, int]) -> None:
    service = Service(name)
    service.handle(Echo())
    async with service:
        await asyncio.to_thread(both.wait)  # both are registered
        answers[name] = await call(service, other)
        await asyncio.to_thread(both.wait)  # both have had their answers


def run() -> None:
    one, two = f"{os.environ['NODE_NAME']}-one", f"{os.environ['NODE_NAME']}-two"
    both = threading.Barrier(2, timeout=40)
    answers: dict[str, int] = {}

    def run_loop(name: str, other: str) -> None:
        asyncio.run(main(name, other, both, answers))

    threads = [threading.Thread(target=run_loop, args=names) for names in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{answers[one]} {answers[two]}\n")


if __name__ == "__main__":
    run()
