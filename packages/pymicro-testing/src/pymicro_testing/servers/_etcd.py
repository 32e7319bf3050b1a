"""etcd."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pymicro_testing.servers._native import HOST, NativeServer, ServerFailedError, find_program, free_port

_OK = re.compile(rb"^HTTP/1\.[01] 200 ")


class EtcdServer(NativeServer):
    """One etcd; `settings` are flags without their dashes. Its gateway speaks HTTP and JSON at the same address."""

    name = "etcd"
    question = b"GET /health HTTP/1.0\r\n\r\n"
    answer = re.compile(rb'"health":\s*"true"')

    @classmethod
    def find(cls) -> str:
        """See `NativeServer.find`."""
        return find_program(cls.name, "etcd", how="install it: apt-get install etcd-server")

    def command(self) -> Sequence[str]:
        """See `NativeServer.command`."""
        self.data.chmod(0o700)
        # By default a server that restarts waits for over a second before it elects itself, and grants no lease under
        # two. Alone it cannot lose an election, however busy the machine is.
        flags = {"heartbeat-interval": "20", "election-timeout": "200"}
        flags |= {"data-dir": str(self.data), "listen-peer-urls": f"http://{HOST}:{free_port()}"}
        flags["listen-client-urls"] = flags["advertise-client-urls"] = self._url
        if self.certificates is not None:
            flags |= {
                "trusted-ca-file": str(self.certificates.authority),
                "cert-file": str(self.certificates.server_certificate),
                "key-file": str(self.certificates.server_key),
                "client-cert-auth": "true",
            }
        return [self.program, *(f"--{name}={value}" for name, value in (flags | self.settings).items())]

    async def prepare(self) -> None:
        """Make the user, and refuse others from then on."""
        if not self.credentials:
            return
        await self._tell("auth/role/add", {"name": "root"})
        for user in ("root", self.username):
            await self._tell("auth/user/add", {"name": user, "password": self.password})
            await self._tell("auth/user/grant", {"user": user, "role": "root"})
        await self._tell("auth/enable", {})

    @property
    def _url(self) -> str:
        return f"{'http' if self.certificates is None else 'https'}://{self.address}"

    async def _tell(self, path: str, body: Mapping[str, str]) -> None:
        content = json.dumps(body).encode()
        head = f"POST /v3/{path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        if not await self.asked(head.encode() + content, _OK):
            raise ServerFailedError(f"etcd at {self.address} refused {path}")
