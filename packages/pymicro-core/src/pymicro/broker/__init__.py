"""Brokers: topics, and messages that wait in them."""

from pymicro.broker._contract import Broker, Consumer
from pymicro.broker._dispatcher import Dispatcher, Handler
from pymicro.broker._memory import MemoryBroker, MemoryBrokerOptions, MemoryTopics
from pymicro.broker._retry import RetryPolicy
from pymicro.broker._subscription import Subscription
from pymicro.broker._types import Ack, Capability, Delivery, Reject, Retry, Settlement

__all__ = [
    "Ack",
    "Broker",
    "Capability",
    "Consumer",
    "Delivery",
    "Dispatcher",
    "Handler",
    "MemoryBroker",
    "MemoryBrokerOptions",
    "MemoryTopics",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Settlement",
    "Subscription",
]
