"""Exchanges and queues: what they are called, and how they are declared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelPreconditionFailed

from pymicro.errors import BackendRefused
from pymicro_broker_rabbitmq._options import RabbitmqBrokerOptions, RabbitmqSubscription
from pymicro_rabbitmq import check_name
from pymicro_rabbitmq.connection import reason

_GO_EXCHANGE: Final = "micro"
_OWN_EXCHANGE: Final = "pymicro"
_UNFIT: Final = re.compile(r"[^a-zA-Z0-9_.:#,/ -]+")


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue to declare.

    Attributes:
        name: empty for one that the server names, of one consumer.
        durable, exclusive, auto_delete, arguments: as in AMQP.
    """

    name: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Mapping[str, Any]


class Topology:
    """How the topics of this configuration are laid out on a server.

    Args:
        options: says which of the two configurations it is, and the exchange.
    """

    def __init__(self, options: RabbitmqBrokerOptions) -> None:
        self.durable = options.durable
        self.exchange = options.exchange or (_OWN_EXCHANGE if options.durable else _GO_EXCHANGE)
        check_name("exchange", self.exchange)

    def queue(self, topic: str, queue: str, native: RabbitmqSubscription) -> Queue:
        """The queue of a subscription.

        In Go Micro's layout it is called as the user calls it, whatever the topic, so that Go services share it.
        Otherwise each topic has its own.

        Raises:
            BackendRefused: the server cannot have that name.
        """
        name = native.queue_name
        check_name("queue", queue)
        if not name and queue:
            name = f"{_escaped(queue)}@{_escaped(topic)}" if self.durable else queue
        check_name("queue", name)
        counted = {"x-queue-type": "quorum"} if self.durable and name else {}
        return Queue(
            name=name,
            durable=self.durable and bool(name),
            exclusive=not name,
            auto_delete=not (self.durable and name),
            arguments={**counted, **native.queue_arguments},
        )

    async def declare_exchange(self, channel: AbstractChannel) -> None:
        """Have the exchange.

        Raises:
            BackendRefused: there is one of this name that is not as this configuration wants it.
        """
        try:
            await channel.exchange_declare(self.exchange, exchange_type="topic", durable=self.durable)
        except ChannelPreconditionFailed as error:
            raise BackendRefused(
                f"exchange {self.exchange!r} exists with other properties than "
                f"--broker_rabbitmq_durable={str(self.durable).lower()} asks for; choose another with "
                f"--broker_rabbitmq_exchange, or delete it: {reason(error)}"
            ) from error

    async def declare_queue(self, channel: AbstractChannel, queue: Queue) -> str:
        """Have a queue; its name on the server.

        Raises:
            BackendRefused: there is one of this name that is not as this configuration wants it.
        """
        try:
            declared = await channel.queue_declare(
                queue.name,
                durable=queue.durable,
                exclusive=queue.exclusive,
                auto_delete=queue.auto_delete,
                arguments=dict(queue.arguments),
            )
        except ChannelPreconditionFailed as error:
            raise BackendRefused(
                f"queue {queue.name!r} exists with other properties than "
                f"--broker_rabbitmq_durable={str(self.durable).lower()} asks for; choose another name, "
                f"or delete it: {reason(error)}"
            ) from error
        return declared.queue or queue.name


def _escaped(text: str) -> str:
    """`text` as a part of the name of a queue: without the sign between the parts, and what the driver refuses."""
    return _UNFIT.sub(lambda unfit: "".join(f"+{byte:02X}" for byte in unfit[0].encode()), text)
