"""Messages as records: Go Micro's envelope as the value, the ordering key as the record's key."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from pymicro.broker import envelope
from pymicro.errors import ConfigurationError, TooLarge
from pymicro.message import Message
from pymicro.metadata import EMPTY
from pymicro.plugins import Limits

_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


@functools.lru_cache(maxsize=1024)  # asked for each message
def check_topic(topic: str) -> None:
    """Refuse what Kafka cannot have as the name of a topic.

    Raises:
        ConfigurationError: the text says what a topic may be.
    """
    if not _TOPIC.fullmatch(topic):
        raise ConfigurationError(
            f"topic {topic!r} cannot be one of Kafka: up to 249 letters from a to z, digits, '.', '_' and '-'"
        )


def write(topic: str, message: Message, key: str | None) -> tuple[bytes, bytes | None]:
    """Value and key of the record for a message. Go Micro's plugin reads the value and overlooks the key."""
    return envelope.write(topic, message, None), None if key is None else key.encode()


def read(record: Any, topic: str, limits: Limits) -> tuple[Message, str | None] | None:
    """The message in a record, and its key; None if it is over a limit.

    A value that is no envelope is the body of a message without headers. Headers of the record, which other clients
    write, go before those of the envelope, as in Go Micro.
    """
    value = record.value or b""
    if len(value) > envelope.longest(limits):
        return None
    try:
        message, key = envelope.read(value)
    except ValueError:
        message, key = Message(EMPTY, value), None
    fields = [(name, (text or b"").decode("utf-8", "replace")) for name, text in record.headers or ()]
    if envelope.TOPIC not in message.headers:
        fields.append((envelope.TOPIC, topic))
    if fields:
        message = Message(message.headers.extend(tuple(fields)), message.body)
    if record.key is not None:
        key = bytes(record.key).decode("utf-8", "replace")
    try:
        limits.check(message)
    except TooLarge:
        return None
    return message, key
