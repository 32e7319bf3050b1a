"""Redis."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pymicro_testing.servers._native import HOST, NativeServer, find_program


class RedisServer(NativeServer):
    """Redis with an append-only file, so that what it acknowledged survives a kill; `settings` are of `redis.conf`."""

    name = "redis"
    question = b"PING\r\nQUIT\r\n"  # one that still loads its file says so and no more: hang up and ask again
    answer = re.compile(rb"\+PONG|-NOAUTH")

    @classmethod
    def find(cls) -> str:
        """See `NativeServer.find`."""
        return find_program(cls.name, "redis-server", "valkey-server", how="install it: apt-get install redis-server")

    def command(self) -> Sequence[str]:
        """See `NativeServer.command`."""
        config = {"bind": HOST, "dir": str(self.data), "save": '""', "appendonly": "yes", "port": str(self.port)}
        if self.certificates is not None:
            config |= {
                "port": "0",
                "tls-port": str(self.port),
                "tls-ca-cert-file": str(self.certificates.authority),
                "tls-cert-file": str(self.certificates.server_certificate),
                "tls-key-file": str(self.certificates.server_key),
                "tls-auth-clients": "yes",
            }
        if self.credentials:
            # The user by name, and the password alone, as clients without user names give it.
            config["requirepass"] = f'"{self.password}"'
            config["user"] = f'{self.username} on ">{self.password}" ~* &* +@all'
        lines = [f"{name} {value}" for name, value in (config | self.settings).items()]
        path = self.folder / "redis.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [self.program, str(path)]
