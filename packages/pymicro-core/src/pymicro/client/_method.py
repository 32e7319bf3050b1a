"""One endpoint of one service, made ready to be called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pymicro.codec import Codec, CodecTable, Decode, Encode, Envelope, EnvelopeCodec
from pymicro.errors import BadRequest, InternalServerError
from pymicro.metadata import Headers
from pymicro.record import Node
from pymicro.rpc import EndpointOptions, EndpointSpec, names
from pymicro.selector import Filter, Strategy


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a call goes to.

    Attributes:
        service: its name.
        address: a node's address, to go there without asking the registry; None to choose a node.
        filters: leave out nodes before one is chosen.
        strategy: the strategy that chooses, or its name; None for the selector's own.
        key: for strategies that send one key to one node; None for others.
        content_type: of the bodies; None for the client's default.
    """

    service: str
    address: str | None = None
    filters: Sequence[Filter] = ()
    strategy: str | Strategy | None = None
    key: str | None = None
    content_type: str | None = None


class Method:
    """What does not change from one call of an endpoint to the next.

    Attributes:
        target, spec: whom and what; `service`, `name`, `stream` and `timeout` are facts of theirs that calls need.
        node: where, when the target names an address; None otherwise.
        head: the constant headers of a request.
        encode, decode: for one request, one response.
        content_type: of the bodies.
    """

    def __init__(self, target: Target, spec: EndpointSpec, codecs: CodecTable, content_type: str) -> None:
        self.target = target
        self.spec = spec
        self.service, self.name, self.stream = target.service, spec.name, spec.stream
        self.timeout = spec.options.timeout
        self.content_type = content_type
        self.node = None if target.address is None else Node(target.address, target.address, {"protocol": "mucp"})
        self.head = _head(target.service, spec.name, content_type)
        codec = codecs.get(content_type)
        self._envelope = codec if isinstance(codec, EnvelopeCodec) else None
        inner: Codec = codec.inner if isinstance(codec, EnvelopeCodec) else codec
        self._encode: Encode = inner.encoder(spec.request)
        self._decode: Decode = inner.decoder(spec.response)
        self._codecs = codecs
        self._legacy: Method | None = None
        #: go-micro answers a content type that it does not know with this text and no error: `server/rpc_codec.go`.
        self._refusal = f"unsupported Content-Type: {content_type}".encode()

    def encode(self, body: Any, number: str) -> bytes:
        """The bytes of one request.

        Raises:
            BadRequest: the value does not fit the endpoint's type.
        """
        data = self._encode(body)
        if self._envelope is not None:
            return self._envelope.wrap_request(Envelope(id=number, endpoint=self.spec.name), data)
        return data

    def decode(self, body: bytes, headers: Headers) -> Any:
        """The value of one response.

        Raises:
            InternalServerError: the body does not fit the type, or the server does not know the content type.
        """
        if body == self._refusal:
            raise InternalServerError(body.decode(), "pymicro.client.codec")
        try:
            if self._envelope is not None:
                body = self._envelope.unwrap_response(body)[1]
            return self._decode(body)
        except BadRequest as error:
            told = body[:500].decode("utf-8", "replace") if headers.get(names.CONTENT_TYPE) == "text/plain" else ""
            detail = told or f"the response of {self.spec.name} does not fit: {error.detail}"
            raise InternalServerError(detail, "pymicro.client.codec") from error

    def legacy(self) -> Method:
        """The method as nodes without `protocol` in their metadata understand it: go-micro's oldest want envelopes."""
        if self._legacy is None:
            content_type = _LEGACY.get(self.content_type, self.content_type)
            self._legacy = Method(self.target, self.spec, self._codecs, content_type)
        return self._legacy


_LEGACY = {"application/json": "application/json-rpc", "application/protobuf": "application/proto-rpc"}


def _head(service: str, endpoint: str, content_type: str) -> Headers:
    return Headers(
        [
            (names.CONTENT_TYPE, content_type),
            (names.SERVICE, service),
            (names.ENDPOINT, endpoint),
            (names.METHOD, endpoint),
        ]
    )


def untyped(endpoint: str, response: Any, *, request: Any, idempotent: bool) -> EndpointSpec:
    """The spec of an endpoint that is called by its name."""
    return EndpointSpec(
        name=endpoint,
        method=endpoint,
        request=request,
        response=response,
        takes=True,
        client_stream=False,
        server_stream=False,
        asynchronous=True,
        options=EndpointOptions(idempotent=idempotent),
    )
