"""Says which of several servers answered."""

from pymicro import Service

service = Service("where")


class Where:
    async def am_i(self) -> str:
        return service.settings.server.id or ""


service.handle(Where())

if __name__ == "__main__":
    service.run()
