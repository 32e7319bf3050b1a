"""What is the same in every codec: raw bodies, and endpoints without a body."""

from __future__ import annotations

from abc import abstractmethod
from types import NoneType
from typing import Any

from pymicro.codec._contract import Codec, Decode, Encode
from pymicro.errors import BadRequest


class BaseCodec(Codec):
    """A codec that leaves `bytes` as they are and knows endpoints without a body; subclasses code everything else.

    Attributes:
        empty: what is written for an endpoint without a body.
    """

    empty: bytes = b""

    def encoder(self, type: Any) -> Encode:
        if type is bytes:
            return _write_raw
        return self._nothing if type in (None, NoneType) else self._encoder(type)

    def decoder(self, type: Any) -> Decode:
        if type is bytes:
            return _read_raw
        return _ignore if type in (None, NoneType) else self._decoder(type)

    @abstractmethod
    def _encoder(self, type: Any) -> Encode:
        """As `encoder`, for types other than `bytes` and None."""

    @abstractmethod
    def _decoder(self, type: Any) -> Decode:
        """As `decoder`, for types other than `bytes` and None."""

    def _nothing(self, value: Any) -> bytes:
        if value is not None:
            raise BadRequest(f"cannot encode {type(value).__name__}: the endpoint has no body here")
        return self.empty


def _write_raw(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise BadRequest(f"cannot encode bytes: got {type(value).__name__}")
    return bytes(value)


def _read_raw(data: bytes) -> bytes:
    return data


def _ignore(data: bytes) -> None:
    return None
