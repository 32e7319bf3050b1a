"""NATS with JetStream."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pymicro_testing.servers._native import NativeServer, find_program


class NatsServer(NativeServer):
    """NATS with JetStream on files; `settings` are lines of its configuration, with values as written there."""

    name = "nats"
    answer = re.compile(rb"INFO \{")
    greets_in_tls = False

    @classmethod
    def find(cls) -> str:
        """See `NativeServer.find`."""
        return find_program(cls.name, "nats-server", how="install it: apt-get install nats-server")

    def command(self) -> Sequence[str]:
        """See `NativeServer.command`."""
        config: dict[str, object] = {
            "listen": self.address,
            "server_name": f"{self.name}-{self.port}",
            "jetstream": {"store_dir": str(self.data)},
        }
        if self.certificates is not None:
            config["tls"] = {
                "cert_file": str(self.certificates.server_certificate),
                "key_file": str(self.certificates.server_key),
                "ca_file": str(self.certificates.authority),
                "verify": True,
            }
        if self.credentials:
            config["authorization"] = {"user": self.username, "password": self.password}
        path = self.folder / "nats.conf"
        lines = [f"{name}: {json.dumps(value)}" for name, value in config.items() if name not in self.settings]
        lines += [f"{name}: {value}" for name, value in self.settings.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [self.program, "--config", str(path)]
