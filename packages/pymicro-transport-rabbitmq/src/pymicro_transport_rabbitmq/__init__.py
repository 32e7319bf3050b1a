"""RabbitMQ as pymicro's transport. Importing it makes `--transport=rabbitmq` available."""

from pymicro.plugins import enable
from pymicro_transport_rabbitmq import _plugin
from pymicro_transport_rabbitmq._options import RabbitmqTransportOptions

__all__ = ["RabbitmqTransportOptions"]

enable(_plugin)
