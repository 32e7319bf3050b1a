"""Redis as a broker for pymicro. Importing it makes `--broker=redis` available."""

from pymicro.plugins import enable
from pymicro_broker_redis import _plugin
from pymicro_broker_redis._options import RedisBrokerOptions, RedisSubscription

__all__ = ["RedisBrokerOptions", "RedisSubscription"]

enable(_plugin)
