"""RabbitMQ as pymicro's broker. Importing it makes `--broker=rabbitmq` available."""

from pymicro.plugins import enable
from pymicro_broker_rabbitmq import _plugin
from pymicro_broker_rabbitmq._options import RabbitmqBrokerOptions, RabbitmqSubscription

__all__ = ["RabbitmqBrokerOptions", "RabbitmqSubscription"]

enable(_plugin)
