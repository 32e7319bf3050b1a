"""The codecs of a service by content type."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from pymicro._internal.logs import log
from pymicro.codec._bytes import BytesCodec
from pymicro.codec._contract import Codec, EnvelopeCodec
from pymicro.codec._json import JsonCodec
from pymicro.codec._json_rpc import JsonRpcCodec
from pymicro.codec._text import TextCodec
from pymicro.errors import BadRequest

#: Content types, what builds their codec, and the plugin's name.
Entry = tuple[tuple[str, ...], Callable[[], Codec | EnvelopeCodec], str]

_CORE: Final[tuple[Entry, ...]] = (
    (("application/json",), JsonCodec, "json"),
    (("application/json-rpc",), JsonRpcCodec, "json_rpc"),
    (("application/octet-stream",), BytesCodec, "bytes"),
    (("text/plain",), TextCodec, "text"),
)


class CodecTable:
    """Finds the codec of a content type; each is built when it is first needed.

    A codec that cannot be built is logged once and left out: it may come from a plugin that nobody asked for.

    Args:
        entries: the codecs; of two with one content type the first one counts.
        logger: where a codec that cannot be built is reported.
    """

    def __init__(self, entries: Iterable[Entry], logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("pymicro.codec")
        self._entries: dict[str, Entry] = {}
        self._built: dict[str, Codec | EnvelopeCodec] = {}
        self._broken: dict[str, Exception] = {}
        for entry in entries:
            for content_type in entry[0]:
                self._entries.setdefault(content_type, entry)

    @classmethod
    def default(cls) -> CodecTable:
        """A table of the codecs that the core has."""
        return cls(_CORE)

    @property
    def content_types(self) -> tuple[str, ...]:
        """What is known, without codecs that turned out to be broken."""
        return tuple(known for known, entry in self._entries.items() if entry[2] not in self._broken)

    def get(self, content_type: str) -> Codec | EnvelopeCodec:
        """The codec of a content type; parameters such as `; charset=utf-8` and capitals make no difference.

        Raises:
            BadRequest: there is no codec for it, or it cannot be built; the cause is then attached.
        """
        codec = self._built.get(content_type)
        return self._find(content_type) if codec is None else codec

    def _find(self, content_type: str) -> Codec | EnvelopeCodec:
        plain = content_type if content_type in self._entries else content_type.partition(";")[0].strip().lower()
        codec = self._built.get(plain)
        if codec is not None:
            return codec
        entry = self._entries.get(plain)
        if entry is None:
            raise BadRequest(f"unsupported Content-Type: {content_type[:200]} (known: {', '.join(self.content_types)})")
        return self._build(content_type[:200], *entry)

    def _build(
        self, asked: str, content_types: tuple[str, ...], make: Callable[[], Codec | EnvelopeCodec], plugin: str
    ) -> Codec | EnvelopeCodec:
        cause = self._broken.get(plugin)
        if cause is None:
            try:
                codec = make()
            except Exception as error:  # a plugin may fail in any way
                self._broken[plugin] = cause = error
                log(self._logger, logging.WARNING, "codec_left_out", plugin=plugin, error=repr(error))
            else:
                for content_type in content_types:
                    if self._entries[content_type][2] == plugin:
                        self._built[content_type] = codec
                return codec
        raise BadRequest(
            f"unsupported Content-Type: {asked}: codec {plugin} cannot be used: {cause} "
            f"(known: {', '.join(self.content_types)})"
        ) from cause
