"""The names of the project's own packages, `pymicro-<kind>-<name>`: only these are worth a `pip install` hint."""

from __future__ import annotations

from typing import Final

OFFICIAL: Final[dict[str, tuple[str, ...]]] = {
    "auth": ("jwt",),
    "broker": ("googlepubsub", "http", "kafka", "mqtt", "nats", "nsq", "rabbitmq", "redis"),
    "codec": ("bson", "msgpack", "protobuf"),
    "config": ("consul", "etcd", "nats", "yaml"),
    "debug": ("opentelemetry", "prometheus"),
    "registry": ("consul", "dns", "etcd", "gossip", "kubernetes", "mdns", "nats", "static", "zookeeper"),
    "runtime": ("kubernetes",),
    "store": ("consul", "etcd", "file", "nats", "postgres", "redis"),
    "sync": ("consul", "etcd", "redis"),
    "transport": ("grpc", "http", "nats", "rabbitmq", "tcp", "websocket"),
}


def install_hint(kind: str, name: str) -> str:
    """The command that installs a plugin of ours; empty for a name that is not ours."""
    return f"pip install pymicro-{kind}-{name}" if name in OFFICIAL.get(kind, ()) else ""
