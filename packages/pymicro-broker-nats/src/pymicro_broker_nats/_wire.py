"""Names and ids."""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from pymicro.errors import ConfigurationError

#: The header by which JetStream knows a message that was published twice.
ID: Final = "Nats-Msg-Id"

_UNFIT_QUEUE: Final = re.compile(r"[\s\0]")

#: What a server takes for the name of a stream or a consumer.
_LONGEST_NAME: Final = 200


def check_queue(queue: str) -> None:
    """Refuse what cannot be a queue group.

    Raises:
        ConfigurationError: the text says what a queue may be.
    """
    if _UNFIT_QUEUE.search(queue):
        raise ConfigurationError(f"queue {queue!r} cannot be a NATS queue group: no spaces")


def new_id() -> str:
    """An id for a consumer that nobody else has."""
    return uuid.uuid4().hex


def ids() -> Callable[[], str]:
    """Makes ids for messages that nobody else has: a random part of its own, and a number."""
    prefix, numbers = uuid.uuid4().hex, itertools.count(1)
    return lambda: f"{prefix}.{next(numbers)}"


def name_of(text: str) -> str:
    """A name for a stream or a consumer, one for each text: letters, digits, `-`, `_`, `~`, and the rest as `=2E`."""
    name = quote(text, safe="").replace(".", "%2E").replace("%", "=")  # the server takes `%` in a name for a format
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"
