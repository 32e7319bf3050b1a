"""Connections. Importing it imports the driver."""

from pymicro_rabbitmq._access import Access
from pymicro_rabbitmq._errors import mapped, mapping, reason
from pymicro_rabbitmq._link import Link, bounded, close_channel

__all__ = ["Access", "Link", "bounded", "close_channel", "mapped", "mapping", "reason"]
