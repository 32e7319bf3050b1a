"""What pymicro's plugins on RabbitMQ share: options, addresses, and what AMQP can carry.

Importing it imports no driver; `pymicro_rabbitmq.connection` does. Public for the plugins of this project only.
"""

from pymicro_rabbitmq._address import Server, servers
from pymicro_rabbitmq._names import check_key, check_name, check_table, text
from pymicro_rabbitmq._options import RabbitmqOptions

__all__ = ["RabbitmqOptions", "Server", "check_key", "check_name", "check_table", "servers", "text"]
