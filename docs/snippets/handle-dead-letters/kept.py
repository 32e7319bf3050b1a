"""How a subscription asks for the dead letters that were there before it."""

from typing import Any

from pymicro_broker_kafka import KafkaSubscription
from pymicro_broker_nats import NatsSubscription
from pymicro_broker_redis import RedisSubscription

KEPT: dict[str, dict[str, Any]] = {
    "kafka": {"queue": "clerk", "native": KafkaSubscription(start="kept")},
    "nats": {"queue": "clerk", "native": NatsSubscription(deliver="all")},
    "rabbitmq": {"queue": "parcels.dead"},
    "redis": {"queue": "clerk", "native": RedisSubscription(start="kept")},
}
