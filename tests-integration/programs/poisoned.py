"""Fails on each event of `<its name>.poison`; on every second delivery it hangs instead, until it is killed."""

import asyncio
import os
import sys

from pymicro import Delivery, RetryPolicy, Service

NAME = os.environ["NODE_NAME"]

service = Service(NAME)


async def fail(delivery: Delivery[str]) -> None:
    sys.stdout.write(f"delivery {delivery.count}\n")
    sys.stdout.flush()
    if delivery.count % 2 == 0:
        await asyncio.Event().wait()
    raise RuntimeError("it cannot be done")


service.subscribe(f"{NAME}.poison", fail, queue="work", retry=RetryPolicy(max_deliveries=5, delay=0.05))

if __name__ == "__main__":
    service.run()
