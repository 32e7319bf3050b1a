"""Kafka without ZooKeeper, from its published jars."""

from __future__ import annotations

import hashlib
import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

from pymicro_testing.servers._cache import cached, make_once, run
from pymicro_testing.servers._native import HOST, MissingServerError, NativeServer, find_program, free_port

_VERSION = "4.1.0"
_CACHED = f"kafka-{_VERSION}"
_HOW = "fetch it: python -m pymicro_testing.servers --install kafka"
_JAVA = "install Java 17 or newer: apt-get install default-jre-headless"
_MAVEN = "fetching it needs Maven: apt-get install maven"
_JARS = (
    ("org.apache.kafka", "kafka_2.13", _VERSION),
    ("org.apache.kafka", "kafka-tools", _VERSION),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
)
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
_DIGEST = (
    "340ce22cfb2ec65c87437aa85d07fe2b06c2c554476fc01dd22d9b0109858947"  # see `_digest`; new with each version above
)
_START = r"""
java=$1 jars=$2 config=$3 cluster=$4 data=$5 user=$6
set -- -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*"
if [ ! -e "$data/meta.properties" ]; then
    "$java" -Xmx256m "$@" kafka.tools.StorageTool format "--cluster-id=$cluster" -c "$config" \
        ${user:+--add-scram "$user"} || exit
fi
exec "$java" -Xmx512m "$@" kafka.Kafka "$config"
"""


class KafkaServer(NativeServer):
    """One Kafka, broker and controller in one; `settings` are of `server.properties`. Credentials are
    for SASL/PLAIN and SCRAM-SHA-256.
    """

    name = "kafka"
    large = True
    version = _VERSION
    patience = 50.0
    question = b"\x00\x00\x00\x0e\x00\x12\x00\x00\x00\x00\x00\x07\x00\x04test"  # ApiVersions, version 0
    answer = re.compile(rb"\x00\x00\x00\x07\x00\x00")

    @classmethod
    def find(cls) -> str:
        """See `NativeServer.find`."""
        java = find_program(cls.name, "java", how=_JAVA)
        if not cached(_CACHED).exists():
            raise MissingServerError(f"{cls.name}: its jars are not here; {_HOW}")
        return java

    @classmethod
    def install(cls) -> str:
        """See `NativeServer.install`. Fetches its jars with Maven, once."""
        find_program(cls.name, "java", how=_JAVA)
        return str(make_once(_CACHED, _fetch))

    def command(self) -> Sequence[str]:
        """See `NativeServer.command`."""
        controller = f"{HOST}:{free_port()}"
        protocol = ("SASL_" if self.credentials else "") + ("SSL" if self.certificates is not None else "PLAINTEXT")
        config = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CLIENTS://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENTS://{self.address}",
            "inter.broker.listener.name": "CLIENTS",
            "listener.security.protocol.map": f"CLIENTS:{protocol},CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.data),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "500",  # tests wait for the sessions of the dead to end
            # After a kill the controller waits this long, 9 seconds by default, before it takes the broker back.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
        }
        lines = [f"{name}={value}" for name, value in (config | self._security() | self.settings).items()]
        path = self.folder / "server.properties"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        user = f"SCRAM-SHA-256=[name={self.username},password={self.password}]" if self.credentials else ""
        return ["sh", "-c", _START, "sh", self.program, str(cached(_CACHED)), str(path), cluster, str(self.data), user]

    def _security(self) -> dict[str, str]:
        security: dict[str, str] = {}
        if self.certificates is not None:
            made = self.certificates
            key, own, authority = (
                path.read_text("ascii").strip().replace("\n", "\\n")
                for path in (made.server_key, made.server_certificate, made.authority)
            )
            security |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.key": key,
                "ssl.keystore.certificate.chain": own,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.certificates": authority,
                "listener.name.clients.ssl.client.auth": "required",
            }
        if self.credentials:
            name, secret = self.username, self.password
            security |= {
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                "listener.name.clients.plain.sasl.jaas.config": (
                    "org.apache.kafka.common.security.plain.PlainLoginModule required "
                    f'username="{name}" password="{secret}" user_{name}="{secret}";'
                ),
                "listener.name.clients.scram-sha-256.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
            }
        return security


def _fetch(folder: Path) -> Path:
    maven = find_program("kafka", "mvn", how=_MAVEN)
    wanted = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for group, artifact, version in _JARS
    )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>pymicro</groupId><artifactId>servers</artifactId><version>1</version>"
        f"<dependencies>{wanted}</dependencies></project>",
        encoding="utf-8",
    )
    run("kafka", [maven, "-q", "-B", "-C", "-Dstyle.color=never", _COPY, "-DoutputDirectory=jars"], folder)
    jars = folder / "jars"
    if _digest(jars) != _DIGEST:
        raise MissingServerError("kafka: what Maven fetched are not the jars that are known; they were deleted")
    return jars


def _digest(folder: Path) -> str:
    """One for the names and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
