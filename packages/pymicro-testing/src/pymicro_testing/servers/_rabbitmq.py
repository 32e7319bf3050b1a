"""RabbitMQ, with neither management nor any other plugin."""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping, Sequence

from pymicro_testing.servers._native import HOST, NativeServer, ServerFailedError, find_program, free_port

_HOW = "install it: apt-get install --no-install-recommends rabbitmq-server"
# The port mapper in the same process group, so that it ends with the server and no other node is met there. A server
# that does not find one starts its own, which would outlive it.
_START = """
epmd -address "$ERL_EPMD_ADDRESS" -port "$ERL_EPMD_PORT" &
until epmd -port "$ERL_EPMD_PORT" -names >/dev/null 2>&1; do sleep 0.02; done
exec "$0"
"""

#: How the name of a quorum queue stands in its configuration, if it needs no escapes there.
_QUEUE = re.compile(rb"cluster_name => '([ -&(-\[\]-~]+)'")


class RabbitmqServer(NativeServer):
    """RabbitMQ as a node of its own; `settings` are of `rabbitmq.conf`. It always has a user: guest, if not another."""

    name = "rabbitmq"
    large = True
    usual = ("guest", "guest")
    patience = 40.0
    question = b"AMQP\x00\x00\x09\x01"
    answer = re.compile(rb"\x00\x0a\x00\x0a")  # connection.start

    @classmethod
    def find(cls) -> str:
        """See `NativeServer.find`."""
        # Not the wrapper of the same name on the usual path, which changes the user and forgets the variables.
        found = find_program(cls.name, "rabbitmq-server", places=("/usr/lib/rabbitmq/bin",), how=_HOW)
        find_program(cls.name, "epmd", how=_HOW)
        return found

    def command(self) -> Sequence[str]:
        """See `NativeServer.command`."""
        config = {
            "listeners.tcp.1": self.address,
            "default_user": self.username,
            "default_pass": self.password,
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
        }
        if self.certificates is not None:
            del config["listeners.tcp.1"]
            config |= {
                "listeners.tcp": "none",
                "listeners.ssl.1": self.address,
                "ssl_options.cacertfile": str(self.certificates.authority),
                "ssl_options.certfile": str(self.certificates.server_certificate),
                "ssl_options.keyfile": str(self.certificates.server_key),
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "true",
            }
        lines = [f"{name} = {value}" for name, value in (config | self.settings).items()]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.folder / "plugins").write_text("[].", encoding="utf-8")
        return ["sh", "-c", _START, self.program]

    def environment(self) -> Mapping[str, str]:
        """See `NativeServer.environment`."""
        self._variables = {
            "HOME": str(self.folder),  # of the cookie
            "detached": "1",  # the server takes the place of its start script
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        return self._variables

    async def control(self, *command: str) -> None:
        """Have `rabbitmqctl` do something with the server that runs, such as `set_disk_free_limit 1GB`; takes a second.

        Raises:
            ServerFailedError: it did not, or took longer than `patience`.
        """
        program = find_program(self.name, "rabbitmqctl", places=("/usr/lib/rabbitmq/bin",), how=_HOW)
        process = await asyncio.create_subprocess_exec(
            program, *command, stdout=PIPE, stderr=STDOUT, env=os.environ | self._variables
        )
        try:
            async with asyncio.timeout(self.patience):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            said, _ = await process.communicate()
        if process.returncode:
            raise ServerFailedError(f"rabbitmqctl {' '.join(command)}: {said.decode('utf-8', 'replace')}")

    async def until_written(self) -> None:
        """Wait until a kill loses no queue.

        RabbitMQ before 4.0 writes down the names of new quorum queues up to a second late. One that is not there yet
        when the server is killed cannot be found again, and consuming from it does not work any more.

        Raises:
            ServerFailedError: it took longer than 5 seconds.
        """
        await self._wait(self._has_written, 5.0, "did not write down the names of its queues")

    async def _has_written(self) -> bool:
        written = b"".join(path.read_bytes() for path in self.data.rglob("names.dets"))
        made = b"".join(path.read_bytes() for path in self.data.glob("*/quorum/*/*/config"))
        return all(name in written for name in _QUEUE.findall(made))
