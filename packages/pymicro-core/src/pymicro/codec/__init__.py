"""Codecs: values to bytes and back, chosen by content type."""

from pymicro.codec._base import BaseCodec
from pymicro.codec._bytes import BytesCodec
from pymicro.codec._contract import Codec, Decode, Encode, Envelope, EnvelopeCodec
from pymicro.codec._json import JsonCodec
from pymicro.codec._json_rpc import JsonRpcCodec
from pymicro.codec._message import message
from pymicro.codec._table import CodecTable
from pymicro.codec._text import TextCodec

__all__ = [
    "BaseCodec",
    "BytesCodec",
    "Codec",
    "CodecTable",
    "Decode",
    "Encode",
    "Envelope",
    "EnvelopeCodec",
    "JsonCodec",
    "JsonRpcCodec",
    "TextCodec",
    "message",
]
