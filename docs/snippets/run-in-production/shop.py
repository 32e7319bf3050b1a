import json
import logging
import sqlite3

from pymicro import Service


class Shop:
    async def open(self) -> bool:
        return True


connection = sqlite3.connect(":memory:")
service = Service("shop")
service.handle(Shop())


# region check
async def database() -> None:
    """Raises when the database does not answer."""
    connection.execute("select 1")


service.check("database", database)
# endregion


# region logging
class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname, "event": getattr(record, "event", record.getMessage())}
        return json.dumps(line | getattr(record, "fields", {}), default=str)


def log_as_json() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)


# endregion

if __name__ == "__main__":
    log_as_json()
    service.run()
