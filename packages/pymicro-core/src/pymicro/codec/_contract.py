"""The codec's contract: values to bytes and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import msgspec

from pymicro.plugins import Build

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


class Envelope(msgspec.Struct, kw_only=True):
    """What an envelope codec writes around a body.

    Attributes:
        id: the request's id; decimal text.
        endpoint: `Handler.Method`; empty in responses.
        error: the error text of a response; empty for none.
    """

    id: str = ""
    endpoint: str = ""
    error: str = ""


class Codec(ABC):
    """Values to bytes and back, for the content types that its plugin names.

    A codec has no state of its own that changes and may be used from several threads.

    `encoder` and `decoder` do the work that depends on the type once; callers keep what they return.

    The type `bytes` is the undecoded body in every codec, as go-micro's Frame is; None is an endpoint without a body:
    anything is read as None.

    Args:
        options, build: given to every component; codecs need neither.
    """

    def __init__(self, options: Any = None, build: Build | None = None) -> None:
        pass

    @abstractmethod
    def encoder(self, type: Any) -> Encode:
        """A function that writes values of `type`.

        Args:
            type: the annotation; `Any` for values of whatever type they have.

        Raises:
            InvalidHandler: the codec cannot carry this type. The returned function raises `BadRequest` for a value
                that does not fit.
        """

    @abstractmethod
    def decoder(self, type: Any) -> Decode:
        """A function that reads values of `type`; `Any` reads whatever is there.

        Raises:
            InvalidHandler: the codec cannot carry this type. The returned function raises `BadRequest`, naming the
                field, for a body that does not fit; never anything else.
        """


class EnvelopeCodec(ABC):
    """Writes ids, endpoint and error into the body itself: json-rpc and proto-rpc.

    The body inside the envelope is coded by `inner`.

    Args:
        options, build: given to every component; codecs need neither.

    Attributes:
        inner: the codec of the body.
    """

    inner: Codec

    def __init__(self, options: Any = None, build: Build | None = None) -> None:
        pass

    @abstractmethod
    def wrap_request(self, envelope: Envelope, body: bytes) -> bytes:
        """The whole request around an encoded body.

        Raises:
            BadRequest: the codec cannot write this id.
        """

    @abstractmethod
    def unwrap_request(self, data: bytes) -> tuple[Envelope, bytes]:
        """The envelope and the encoded body of a request.

        Raises:
            BadRequest: the data is no such request.
        """

    @abstractmethod
    def wrap_response(self, envelope: Envelope, body: bytes) -> bytes:
        """The whole response around an encoded body; `envelope.error` makes it an error.

        Raises:
            BadRequest: the codec cannot write this id.
        """

    @abstractmethod
    def unwrap_response(self, data: bytes) -> tuple[Envelope, bytes]:
        """The envelope and the encoded body of a response.

        Raises:
            BadRequest: the data is no such response.
        """
