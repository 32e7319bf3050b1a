"""`text/plain`: UTF-8 text."""

from __future__ import annotations

from typing import Any

from pymicro.codec._base import BaseCodec
from pymicro.codec._contract import Decode, Encode
from pymicro.errors import BadRequest, InvalidHandler


class TextCodec(BaseCodec):
    """Carries `str`, and `bytes` as they are; `Any` is read as `str`."""

    def _encoder(self, type: Any) -> Encode:
        _require_text(type)
        return _write if type is str else _write_any

    def _decoder(self, type: Any) -> Decode:
        _require_text(type)
        return _read


def _require_text(hint: Any) -> None:
    if hint is not str and hint is not Any:
        raise InvalidHandler(f"text/plain carries str or bytes, not {getattr(hint, '__qualname__', hint)}")


def _write_any(value: Any) -> bytes:
    return value if isinstance(value, bytes) else _write(value)


def _write(value: Any) -> bytes:
    if not isinstance(value, str):
        raise BadRequest(f"cannot encode str: got {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"cannot encode str: {error.reason} at character {error.start}") from error


def _read(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"body does not fit str: no UTF-8 at byte {error.start}") from error
