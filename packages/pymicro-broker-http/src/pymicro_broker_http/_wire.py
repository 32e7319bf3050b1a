"""The bytes: request bodies, error bodies, and the record of a subscription. Follows go-micro `broker/http.go`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pymicro.broker import envelope
from pymicro.errors import BadRequest, Error, InternalServerError
from pymicro.message import Message
from pymicro.record import Node, ServiceRecord

#: The service that all subscriptions of all processes are nodes of; the version says which queue.
SERVICE: Final = "micro.http.broker"

#: The version of subscriptions without a queue.
BROADCAST: Final = "ff.http.broadcast"

#: Seconds for which the registry keeps a subscription whose process went silent.
TTL: Final = 60.0

#: Who says so, in error bodies.
ERROR_ID: Final = "go.micro.broker"

#: Set on a response to a message for a subscription that this process does not have. Go Micro says nothing then.
UNSUBSCRIBED: Final = "Micro-Unsubscribed"

#: Set on a request: the subscription shall take the message only if it need not wait there. Go Micro takes it anyway.
IF_IDLE: Final = "Micro-If-Idle"


def read(data: bytes) -> tuple[Message, str | None]:
    """The message in a request body, and its key.

    Raises:
        InternalServerError: it is no such JSON, or says no topic; the code is Go Micro's.
    """
    try:
        message, key = envelope.read(data)
    except ValueError as error:
        raise InternalServerError(f"Error parsing request body: {error}", ERROR_ID) from error
    if not message.headers.get(envelope.TOPIC):
        raise InternalServerError("Topic not found", ERROR_ID)
    return message, key


def method_not_allowed() -> Error:
    """The error for a request that is no POST."""
    return BadRequest("Method not allowed", ERROR_ID)


def record(id: str, topic: str, queue: str, address: str, *, secure: bool) -> ServiceRecord:
    """How the registry knows a subscription."""
    metadata = {"broker": "http", "secure": "true" if secure else "false", "topic": topic}
    return ServiceRecord(SERVICE, queue or BROADCAST, nodes=(Node(id, address, metadata),))


class Audience:
    """Who is subscribed to one topic.

    Attributes:
        each: nodes that get every message.
        queues: by queue, nodes of which one gets it.
    """

    __slots__ = ("each", "queues")

    def __init__(self) -> None:
        self.each: list[Node] = []
        self.queues: dict[str, list[Node]] = {}


def audiences(records: Iterable[ServiceRecord]) -> dict[str, Audience]:
    """Who is subscribed, by topic. Nodes of other brokers are left out."""
    found: dict[str, Audience] = {}
    for record in records:
        for node in record.nodes:
            topic = node.metadata.get("topic")
            if topic is None or node.metadata.get("broker") != "http":
                continue
            audience = found.setdefault(topic, Audience())
            if record.version == BROADCAST:
                audience.each.append(node)
            else:
                audience.queues.setdefault(record.version, []).append(node)
    return found
