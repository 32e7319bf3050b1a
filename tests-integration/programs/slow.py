"""Takes its time over each event of `<its name>.work`, and says when it has done as many as there are."""

import asyncio
import os
import sys

from pymicro import Service

NAME = os.environ["NODE_NAME"]
EVENTS = int(os.environ["EVENTS"])

service = Service(NAME)
done: set[str] = set()
sizes: list[int] = []


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def work(event: str) -> None:
    await asyncio.sleep(0.01)
    done.add(event.rstrip("."))
    sizes.append(resident())
    if len(done) == EVENTS:
        sys.stdout.write(f"all done, grew by {max(sizes) - sizes[0]}\n")
        sys.stdout.flush()


service.subscribe(f"{NAME}.work", work, queue="work", concurrency=1, prefetch=8)

if __name__ == "__main__":
    service.run()
