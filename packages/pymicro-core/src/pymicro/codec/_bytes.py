"""`application/octet-stream`: bodies as they are, as go-micro `codec/bytes` has them."""

from __future__ import annotations

from typing import Any

from pymicro.codec._base import BaseCodec
from pymicro.codec._contract import Decode, Encode
from pymicro.errors import InvalidHandler


class BytesCodec(BaseCodec):
    """Carries `bytes` only; `Any` is read as `bytes`."""

    def _encoder(self, type: Any) -> Encode:
        return self.encoder(_raw(type))

    def _decoder(self, type: Any) -> Decode:
        return self.decoder(_raw(type))


def _raw(hint: Any) -> type[bytes]:
    if hint is not Any:
        raise InvalidHandler(f"application/octet-stream carries bytes, not {getattr(hint, '__qualname__', hint)}")
    return bytes
