"""`application/json-rpc`: JSON-RPC 1.0 with one parameter, as go-micro `codec/jsonrpc` has it."""

from __future__ import annotations

from typing import Any

import msgspec

from pymicro.codec._contract import Envelope, EnvelopeCodec
from pymicro.codec._json import JsonCodec
from pymicro.codec._proto_json import StructJson
from pymicro.codec._tolerant import tolerant
from pymicro.plugins import Build


class StructJsonCodec(JsonCodec):
    """JSON in which protobuf messages look as Go's structs do: go-micro uses no other form in this envelope."""

    _proto = StructJson()


class _Request(msgspec.Struct):
    method: str = ""
    params: list[msgspec.Raw] | None = None
    id: str | int | None = None


class _Response(msgspec.Struct):
    id: str | int | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: str | None = None


_to_json = msgspec.json.Encoder().encode
_read_request = tolerant("JSON-RPC request", msgspec.json.Decoder(_Request).decode)
_read_response = tolerant("JSON-RPC response", msgspec.json.Decoder(_Response).decode)


class JsonRpcCodec(EnvelopeCodec):
    """A request is `{"params":[body],"id":"1","method":"A.B"}`, its answer `{"id":"1","result":body,"error":null}`.

    Ids are read as text or number and written as text. A request without parameters has an empty body. An
    undecoded body (`bytes`) must itself be JSON here.
    """

    def __init__(self, options: Any = None, build: Build | None = None) -> None:
        self.inner = StructJsonCodec(options, build)

    def wrap_request(self, envelope: Envelope, body: bytes) -> bytes:
        fields = (_value(body), _to_json(envelope.id), _to_json(envelope.endpoint))
        return b'{"params":[%b],"id":%b,"method":%b}\n' % fields

    def unwrap_request(self, data: bytes) -> tuple[Envelope, bytes]:
        request: _Request = _read_request(data)
        body = bytes(request.params[0]) if request.params else b""
        return Envelope(id=_text(request.id), endpoint=request.method), body

    def wrap_response(self, envelope: Envelope, body: bytes) -> bytes:
        error = _to_json(envelope.error or None)
        return b'{"id":%b,"result":%b,"error":%b}\n' % (_to_json(envelope.id), _value(body), error)

    def unwrap_response(self, data: bytes) -> tuple[Envelope, bytes]:
        response: _Response = _read_response(data)
        body = bytes(response.result)
        return Envelope(id=_text(response.id), error=response.error or ""), b"" if body == b"null" else body


def _value(body: bytes) -> bytes:
    return body.rstrip() or b"null"


def _text(id: str | int | None) -> str:
    return "" if id is None else str(id)
