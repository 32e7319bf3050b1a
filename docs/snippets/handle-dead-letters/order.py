from pymicro import Service
from warehouse import Parcel

service = Service("order")


async def main() -> None:
    for item in ("book", "vase"):
        await service.publish("parcels", Parcel(item))


if __name__ == "__main__":
    service.run(main)
