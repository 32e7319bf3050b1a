"""The plugins of this program: importing one enables it."""

import pymicro_broker_kafka  # noqa: F401 (enabled)
import pymicro_broker_nats  # noqa: F401 (enabled)
import pymicro_broker_rabbitmq  # noqa: F401 (enabled)
import pymicro_broker_redis  # noqa: F401 (enabled)
import pymicro_registry_consul  # noqa: F401 (enabled)
import pymicro_registry_etcd  # noqa: F401 (enabled)
import pymicro_registry_nats  # noqa: F401 (enabled)
import pymicro_transport_nats  # noqa: F401 (enabled)
import pymicro_transport_rabbitmq  # noqa: F401 (enabled)
