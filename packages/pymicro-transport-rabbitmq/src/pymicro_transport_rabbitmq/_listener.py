"""A queue at which peers open sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context

from pymicro.errors import ConnectionFailed, Unavailable, to_wire
from pymicro.plugins import Build
from pymicro.plugins.toolkit import log
from pymicro.transport import Accept, Listener
from pymicro_rabbitmq.connection import Link
from pymicro_transport_rabbitmq import _wire
from pymicro_transport_rabbitmq._mailbox import Mailbox
from pymicro_transport_rabbitmq._post import Post
from pymicro_transport_rabbitmq._socket import Ends, RabbitmqSocket
from pymicro_transport_rabbitmq._wire import Parcel


class RabbitmqListener(Listener):
    """See `Listener`. pymicro's peers ask for a socket; of a Go peer any message with an unknown id begins one.

    Args:
        address: the name of the queue.
        exchange: through which Go peers send to it.
        accept: serves a socket.
        link, post: receive and send.
        build: clock, limits, logger.
    """

    def __init__(self, address: str, exchange: str, accept: Accept, link: Link, post: Post, build: Build) -> None:
        self.addresses: Sequence[str] = (address,)
        self.mailbox = Mailbox(link, build, self._strange, address, exchange)
        self._accept = accept
        self._post = post
        self._build = build
        self._context = copy_context()
        self._accepting = True
        self._tasks: set[asyncio.Task[None]] = set()

    async def _strange(self, mailbox: Mailbox, parcel: Parcel) -> None:
        if parcel.kind == _wire.OPEN and parcel.reply_to and parcel.terms is not None:
            if self._accepting:
                self._begin(parcel)
            else:
                await self._answer(parcel, _wire.REFUSE)
        elif not parcel.kind and parcel.reply_to and parcel.socket:
            if self._accepting:
                self._begin(parcel).arrived(parcel)
            else:
                await self._answer(parcel, "", {"Micro-Error": to_wire(Unavailable("the server is stopping"))})
        elif parcel.kind == _wire.DATA:
            await self._answer(parcel, _wire.CLOSE)

    async def _answer(self, parcel: Parcel, kind: str, fields: dict[str, str] | None = None) -> None:
        properties = _wire.properties(parcel.socket, "", fields or {}, kind)
        await self._post.send("", parcel.reply_to, properties)

    def _begin(self, parcel: Parcel) -> RabbitmqSocket:
        ends = Ends(self.mailbox.queue, exchange="", key=parcel.reply_to, terms=parcel.terms if parcel.kind else None)
        build = self._build
        socket = RabbitmqSocket(parcel.socket, ends, self._post, build.limits, build.clock, self.mailbox.forget)
        self.mailbox.sockets[socket.id] = socket
        # This runs in a task of the driver, whose context variables are none of the handler's business.
        context = self._context.copy()
        name = f"rabbitmq accept {socket.id}"
        task = asyncio.get_running_loop().create_task(self._serve(socket), name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return socket

    async def _serve(self, socket: RabbitmqSocket) -> None:
        try:
            if socket.ends.terms is not None:
                with suppress(ConnectionFailed):  # then the peer is gone, and the socket says so
                    await socket.accept()
            await self._accept(socket)
        except Exception as error:
            log(self._build.logger, logging.ERROR, "connection failed", remote=socket.remote, error=repr(error))
        finally:
            await socket.aclose()

    async def stop_accepting(self) -> None:
        self._accepting = False

    async def aclose(self) -> None:
        self._accepting = False
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.mailbox.aclose()
