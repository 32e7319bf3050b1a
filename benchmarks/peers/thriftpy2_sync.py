"""thriftpy2 with its Cython protocol: a thread for each call on both sides."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import thriftpy2
from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TClient, TProcessor
from thriftpy2.transport import TCyBufferedTransportFactory, TServerSocket, TSocket

from peers import About

ABOUT = About(
    says="thriftpy2 with its Cython binary protocol: blocking, a thread and a connection for each call in flight",
    distributions=("thriftpy2",),
    calls="threads",
)
_GREETER: Any = thriftpy2.load(str(Path(__file__).with_name("greeter.thrift")), module_name="greeter_thrift").Greeter


class _Handler:
    def hello(self, name: str) -> str:
        return f"Hello {name}"

    def echo(self, data: bytes) -> bytes:
        return data


async def serve(ready: Callable[[str], None]) -> None:
    """See `Peer`. The event loop does nothing but wait for the end."""
    listening = TServerSocket(host="127.0.0.1", port=0, backlog=1024)
    server = TThreadedServer(
        TProcessor(_GREETER, _Handler()),
        listening,
        iprot_factory=TCyBinaryProtocolFactory(),
        itrans_factory=TCyBufferedTransportFactory(),
        daemon=True,
    )
    listening.listen()
    listening.listen = lambda: None  # the server would listen again, at another port
    threading.Thread(target=server.serve, daemon=True).start()
    ready(str(listening.sock.getsockname()[1]))
    await asyncio.Event().wait()


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """See `Peer`."""
    transport = TCyBufferedTransportFactory().get_transport(TSocket("127.0.0.1", int(address)))
    transport.open()
    client = TClient(_GREETER, TCyBinaryProtocolFactory().get_protocol(transport))
    try:
        yield client
    finally:
        client.close()
