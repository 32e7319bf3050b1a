"""Subscribes to the topic `events` of its name twice, once as one of the queue `work`, and prints what it gets."""

import asyncio
import os
import sys

from pymicro import Service

service = Service(os.environ["NODE_NAME"])
TOPIC = os.environ.get("EVENTS_TOPIC", f"{os.environ['NODE_NAME']}.events")


def say(text: str) -> None:
    sys.stdout.write(f"{os.getpid()} {text}\n")
    sys.stdout.flush()


async def see(event: str) -> None:
    say(f"saw {event}")


async def work(event: str) -> None:
    await asyncio.sleep(float(os.environ.get("EVENTS_WORK", "0")))
    say(f"did {event}")


service.subscribe(TOPIC, see)
service.subscribe(TOPIC, work, queue="work", concurrency=2)

if __name__ == "__main__":
    service.run()
