"""What is used of the driver, which has no types and warns of itself when it is imported."""

from __future__ import annotations

import warnings

# It reads its schemas with functions of the standard library that were deprecated for a while.
warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning, r"(kafka|importlib)\.")

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors  # noqa: E402 (after the filter)
from kafka.consumer.subscription_state import ConsumerRebalanceListener  # noqa: E402
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor  # noqa: E402
from kafka.coordinator.assignors.range import RangePartitionAssignor  # noqa: E402
from kafka.coordinator.base import MemberState  # noqa: E402
from kafka.net.compat import KafkaNetClient  # noqa: E402
from kafka.net.inet import KafkaNetSocket  # noqa: E402
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription  # noqa: E402
from kafka.structs import OffsetAndMetadata, TopicPartition  # noqa: E402

__all__ = [
    "AbstractPartitionAssignor",
    "ConsumerProtocolAssignment",
    "ConsumerProtocolSubscription",
    "ConsumerRebalanceListener",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaNetClient",
    "KafkaNetSocket",
    "KafkaProducer",
    "MemberState",
    "OffsetAndMetadata",
    "RangePartitionAssignor",
    "TopicPartition",
    "errors",
]
