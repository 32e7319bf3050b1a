"""Publishing events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from pymicro._internal.ids import new_id
from pymicro.broker import Broker
from pymicro.codec import CodecTable, Encode, EnvelopeCodec
from pymicro.message import Message
from pymicro.metadata import Headers
from pymicro.rpc import Middleware, Request, Response, chain, checked, current, merged, names, options, propagated_by

T = TypeVar("T")

_MAX_HEADS: Final = 1024  # a program may make up topics

FindBroker = Callable[[str], Awaitable[Broker]]


class Publishing:
    """Encodes events and hands them to a broker. Headers as in go-micro `client/rpc_client.go`.

    Args:
        service: who publishes.
        codecs: by content type.
        content_type: of the bodies, unless said otherwise.
        timeout: seconds for one event, unless said otherwise.
        find: the broker of an instance name.
        middleware: wraps each event; `request.endpoint` is the topic.
    """

    def __init__(
        self,
        service: str,
        codecs: CodecTable,
        content_type: str,
        timeout: float,
        find: FindBroker,
        middleware: Sequence[Middleware],
    ) -> None:
        self._service = service
        self._codecs = codecs
        self._content_type = content_type
        self._timeout = timeout
        self._find = find
        self._encoders: dict[str, Encode] = {}
        self._heads: dict[tuple[str, str], Headers] = {}
        self._call = chain(middleware, self._send)

    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: str | None,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
        timeout: float | None,
        broker: str,
    ) -> None:
        """See `Service.publish`."""
        headers = self._head(topic, content_type or self._content_type).add((("Micro-ID", new_id()),))
        serving, chosen = current.get(), options.get()
        if serving is not None or chosen is not None or metadata:
            headers = headers.extend(
                merged(
                    propagated_by(serving) if serving is not None else (),
                    chosen.metadata if chosen is not None else (),
                    checked(metadata or {}),
                )
            )
        limit = timeout if timeout is not None else self._timeout
        local = {"key": key, "broker": broker, "timeout": limit}
        await self._call(Request(service=self._service, endpoint=topic, body=value, headers=headers, local=local))

    async def _send(self, request: Request) -> Response:
        local = request.local
        encode = self._encoder(request.headers.lowered["content-type"])
        body = request.body if isinstance(request.body, bytes) else encode(request.body)  # as Go's Frame is
        broker = await self._find(local["broker"])
        message = Message(request.headers, body)
        await broker.publish(request.endpoint, message, key=local["key"], timeout=local["timeout"])
        return Response()

    def _head(self, topic: str, content_type: str) -> Headers:
        """What all events of a topic have. Made once, unless there are very many."""
        head = self._heads.get((topic, content_type))
        if head is None:
            head = Headers(((names.CONTENT_TYPE, content_type), (names.TOPIC, topic)))
            if len(self._heads) < _MAX_HEADS:
                self._heads[topic, content_type] = head
        return head

    def _encoder(self, content_type: str) -> Encode:
        """Events have no envelope, whatever the content type."""
        encode = self._encoders.get(content_type)
        if encode is None:
            codec = self._codecs.get(content_type)
            inner = codec.inner if isinstance(codec, EnvelopeCodec) else codec
            encode = self._encoders[content_type] = inner.encoder(Any)
        return encode


class Publisher(Generic[T]):
    """Publishes events of one type to one topic.

    Attributes:
        topic: where to.
        type: of the events; None for any.
    """

    def __init__(self, publish: Callable[..., Awaitable[None]], topic: str, type: type[T] | None) -> None:
        self._publish = publish
        self.topic = topic
        self.type = type

    async def publish(self, event: T, *, key: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        """Publish one event; see `Service.publish`."""
        await self._publish(self.topic, event, key=key, metadata=metadata)
