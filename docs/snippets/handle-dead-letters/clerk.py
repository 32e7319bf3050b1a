"""Takes one dead letter, says why it died, and sends it back."""

from kept import KEPT

from pymicro import Delivery, Service
from warehouse import Parcel

service = Service("clerk")


async def main() -> None:
    plugin = service.settings.choices["broker", ""].plugin
    how = KEPT[plugin.name] if plugin is not None else {}
    async with service.subscription("parcels.dead", Parcel, **how) as letters:
        async for letter in letters:
            headers = letter.message.headers
            print(f"{letter.value.item}: {headers['Micro-Dead-Reason']}, {headers['Micro-Dead-Count']} deliveries")
            await send_back(letter)
            break  # what was taken is acknowledged here


async def send_back(letter: Delivery[Parcel]) -> None:
    headers = letter.message.headers
    await service.publish(
        headers["Micro-Dead-Topic"],
        letter.message.body,  # bytes go as they are
        key=letter.key,
        metadata={name: headers[name] for name in headers if not name.startswith("Micro-") and name != "Content-Type"},
        content_type=headers["Content-Type"],
    )


if __name__ == "__main__":
    service.run(main)
