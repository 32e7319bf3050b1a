"""Kafka as pymicro's broker. Importing it makes `--broker=kafka` available."""

from pymicro.plugins import enable
from pymicro_broker_kafka import _plugin
from pymicro_broker_kafka._options import KafkaBrokerOptions, KafkaSubscription

__all__ = ["KafkaBrokerOptions", "KafkaSubscription"]

enable(_plugin)
