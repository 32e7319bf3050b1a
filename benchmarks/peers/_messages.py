"""The greeter's messages as JSON by msgspec, for peers that bring no codec of their own."""

from __future__ import annotations

import msgspec


class HelloRequest(msgspec.Struct):
    """A name."""

    name: str


class HelloResponse(msgspec.Struct):
    """A greeting."""

    greeting: str


class Blob(msgspec.Struct):
    """Bytes; msgspec writes and reads them as base64."""

    data: bytes


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(HelloRequest).decode
decode_response = msgspec.json.Decoder(HelloResponse).decode
decode_blob = msgspec.json.Decoder(Blob).decode
