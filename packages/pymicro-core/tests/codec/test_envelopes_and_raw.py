"""JSON-RPC beyond what Go was seen to write; raw bytes; text."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pymicro.codec import BytesCodec, Codec, Envelope, JsonRpcCodec, TextCodec
from pymicro.errors import BadRequest, InvalidHandler
from pymicro.plugins import Build, NoOptions


@dataclasses.dataclass
class Hello:
    name: str


def test_a_request_around_a_typed_body() -> None:
    codec = JsonRpcCodec(NoOptions(), Build())
    data = codec.wrap_request(Envelope(id="7", endpoint="Greeter.Hello"), codec.inner.encoder(Hello)(Hello("John")))
    assert data == b'{"params":[{"name":"John"}],"id":"7","method":"Greeter.Hello"}\n'
    envelope, body = codec.unwrap_request(data + b"more")
    assert (envelope.id, codec.inner.decoder(Hello)(body)) == ("7", Hello("John"))


def test_no_body_is_an_empty_object_inside_the_envelope() -> None:
    codec = JsonRpcCodec()
    body = codec.inner.encoder(None)(None)
    assert codec.wrap_response(Envelope(id="1"), body) == b'{"id":"1","result":{},"error":null}\n'
    assert codec.unwrap_response(b'{"id":"1","result":{},"error":null}\n') == (Envelope(id="1"), b"{}")


@pytest.mark.parametrize("params", [b"", b',"params":null', b',"params":[]'])
def test_a_request_without_parameters_has_no_body(params: bytes) -> None:
    envelope, body = JsonRpcCodec().unwrap_request(b'{"id":1,"method":"A.B"%b}' % params)
    assert (envelope, body) == (Envelope(id="1", endpoint="A.B"), b"")


def test_quotes_in_ids_and_errors_stay_inside_the_envelope() -> None:
    codec = JsonRpcCodec()
    envelope = Envelope(id='"},{"', error='say "no"\n')
    assert codec.unwrap_response(codec.wrap_response(envelope, b"")) == (envelope, b"")


@pytest.mark.parametrize(
    "data", [b"[]", b'{"params":{},"method":"A.B"}', b'{"method":5}', b'{"id":[]}', b"\xff", b'{"params":[1'], ids=repr
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match="body does not fit JSON-RPC request: "):
        JsonRpcCodec().unwrap_request(data)


def test_what_is_no_response_is_refused() -> None:
    with pytest.raises(BadRequest, match="body does not fit JSON-RPC response: error: expected str"):
        JsonRpcCodec().unwrap_response(b'{"id":"1","result":null,"error":{"code":5}}')


@pytest.mark.parametrize("of", [bytes, Any], ids=str)
def test_raw_bytes_are_the_body(of: Any) -> None:
    codec = BytesCodec()
    assert codec.encoder(of)(b"\x00\xff") == b"\x00\xff"
    assert codec.decoder(of)(b"\x00\xff") == b"\x00\xff"
    with pytest.raises(BadRequest, match="cannot encode bytes: got dict"):
        codec.encoder(of)({})


def test_text_is_utf8() -> None:
    codec = TextCodec()
    assert codec.encoder(str)("é中") == "é中".encode()
    assert codec.decoder(str)("é中".encode()) == "é中"
    assert codec.decoder(Any)(b"x") == "x"
    assert codec.encoder(Any)("x") == codec.encoder(Any)(b"x") == b"x"
    assert codec.decoder(bytes)(b"\xff") == b"\xff"
    with pytest.raises(BadRequest, match="no UTF-8 at byte 1"):
        codec.decoder(str)(b"a\xff")
    with pytest.raises(BadRequest, match="surrogates"):
        codec.encoder(str)("\ud800")
    with pytest.raises(BadRequest, match="cannot encode str: got int"):
        codec.encoder(str)(5)


@pytest.mark.parametrize("codec", [BytesCodec(), TextCodec()], ids=["bytes", "text"])
@pytest.mark.parametrize("of", [Hello, dict[str, int], int], ids=str)
def test_other_types_are_an_error_of_the_handler(codec: Codec, of: Any) -> None:
    with pytest.raises(InvalidHandler, match="carries"):
        codec.encoder(of)
    with pytest.raises(InvalidHandler, match="carries"):
        codec.decoder(of)


@pytest.mark.parametrize("codec", [BytesCodec(), TextCodec()], ids=["bytes", "text"])
def test_no_body_is_empty(codec: Codec) -> None:
    assert codec.encoder(None)(None) == b""
    assert codec.decoder(None)(b"anything") is None
