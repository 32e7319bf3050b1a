"""Answers each order, of its default broker, with an alert, on the broker called `alerts`; but orders that are bad."""

import os

from pymicro import Service
from pymicro.errors import BadRequest

NAME = os.environ["NODE_NAME"]

service = Service(NAME)


async def take(order: str) -> None:
    if order == "bad":
        raise BadRequest("nobody can make sense of it")
    await service.publish(f"{NAME}.alerts", f"alert of {order}", broker="alerts")


service.subscribe(f"{NAME}.orders", take, queue="work")

if __name__ == "__main__":
    service.run()
