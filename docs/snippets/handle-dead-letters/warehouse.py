from dataclasses import dataclass

from pymicro import RetryPolicy, Service


@dataclass
class Parcel:
    item: str


async def pack(parcel: Parcel) -> None:
    if parcel.item == "vase":
        raise RuntimeError("it broke")


service = Service("warehouse")
# region subscribe
retry = RetryPolicy(max_deliveries=3, delay=0.1, max_delay=60.0)
service.subscribe("parcels", pack, queue="packing", retry=retry)
# endregion

if __name__ == "__main__":
    service.run()
