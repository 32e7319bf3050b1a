"""What every codec must do."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar, Final

import pytest

from pymicro.codec import Codec, Envelope, EnvelopeCodec
from pymicro.errors import BadRequest, InvalidHandler
from pymicro_testing._codec_values import BYTES, STRUCTURED, TEXTS, Person
from pymicro_testing._conformance import Guarded
from pymicro_testing._guard import since

__all__ = ["BYTES", "STRUCTURED", "TEXTS", "CodecConformance", "EnvelopeCodecConformance", "Person"]

_DEEP: Final = 100_000
_HOSTILE: Final = (
    b"",
    b" ",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"{",
    b"}",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b'"\xff"',
    b'"\\ud800"',
    b"NaN",
    b"1e999",
    b"1" * 5000,
    b"[" * _DEEP,
    b'{"a":' * _DEEP,
    b"\x91" * _DEEP,
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x80" * 20,
)


class CodecConformance(Guarded):
    """The cases for codecs.

    Define `make` and `values`. The other attributes add cases:
        values: pairs of a type and a value of it that must survive; `STRUCTURED`, `TEXTS` and `BYTES` are at hand.
        misfits: pairs of a type and a value that does not fit it: encoding is a `BadRequest`.
        malformed: pairs of a type and a body that is none: decoding is a `BadRequest`.
        named: a type, a body that does not fit it, and the field that the `BadRequest` must name.
        refused: types that the codec cannot carry.
    """

    values: ClassVar[Sequence[tuple[Any, Any]]] = ()
    misfits: ClassVar[Sequence[tuple[Any, Any]]] = ()
    malformed: ClassVar[Sequence[tuple[Any, bytes]]] = ()
    named: ClassVar[Sequence[tuple[Any, bytes, str]]] = ()
    refused: ClassVar[Sequence[Any]] = ()

    def make(self) -> Codec:
        """The codec."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(self)")

    @since("0.1")
    async def test_every_value_survives(self) -> None:
        assert self.values, "the codec must carry something: set values"
        for hint, value in self.values:
            body = self.make().encoder(hint)(value)
            assert type(body) is bytes
            decoded = self.make().decoder(hint)(body)
            assert decoded == value
            assert type(decoded) is type(value)

    @since("0.1")
    async def test_one_codec_carries_all_values(self) -> None:
        codec = self.make()
        coders = [(codec.encoder(hint), codec.decoder(hint), value) for hint, value in self.values]
        bodies = [encode(value) for encode, _, value in coders]
        assert [decode(body) for (_, decode, _), body in zip(coders, bodies, strict=True)] == [
            value for _, _, value in coders
        ]

    @since("0.1")
    async def test_bytes_are_the_body_itself(self) -> None:
        codec = self.make()
        for hint, value in BYTES:
            assert codec.encoder(hint)(value) == value
            assert codec.decoder(hint)(value) == value

    @since("0.1")
    async def test_an_endpoint_without_a_body_reads_anything(self) -> None:
        codec = self.make()
        assert codec.decoder(None)(codec.encoder(None)(None)) is None
        for body in _HOSTILE:
            assert codec.decoder(None)(body) is None

    @since("0.1")
    async def test_encoding_leaves_the_value_alone(self) -> None:
        codec = self.make()
        for hint, value in self.values:
            given = copy.deepcopy(value)
            codec.encoder(hint)(given)
            assert given == value

    @since("0.1")
    async def test_decoded_values_share_nothing(self) -> None:
        codec = self.make()
        for hint, value in self.values:
            if hint is bytes:
                continue  # the body itself, which nobody can change
            body = codec.encoder(hint)(value)
            decode = codec.decoder(hint)
            one, other = decode(body), decode(body)
            if isinstance(one, list | dict):
                one.clear()
            elif isinstance(getattr(one, "__dict__", None), dict):  # messages of protobuf show a read-only one
                one.__dict__.clear()
            assert other == value

    @since("0.1")
    async def test_broken_bodies_are_bad_requests_and_nothing_else(self) -> None:
        codec = self.make()
        for hint, value in self.values:
            decode = codec.decoder(hint)
            for body in (*_HOSTILE, *_damaged(codec.encoder(hint)(value))):
                _only_bad_requests(decode, body)

    @since("0.1")
    async def test_malformed_bodies_are_bad_requests(self) -> None:
        for hint, body in self.malformed:
            with pytest.raises(BadRequest):
                self.make().decoder(hint)(body)

    @since("0.1")
    async def test_a_bad_request_names_the_field(self) -> None:
        for hint, body, name in self.named:
            with pytest.raises(BadRequest) as failure:
                self.make().decoder(hint)(body)
            assert name in failure.value.detail

    @since("0.1")
    async def test_values_that_do_not_fit_are_bad_requests(self) -> None:
        for hint, value in self.misfits:
            with pytest.raises(BadRequest):
                self.make().encoder(hint)(value)

    @since("0.1")
    async def test_types_it_cannot_carry_are_refused_at_once(self) -> None:
        codec = self.make()
        for hint in self.refused:
            with pytest.raises(InvalidHandler):
                codec.encoder(hint)
            with pytest.raises(InvalidHandler):
                codec.decoder(hint)

    @since("0.1")
    async def test_a_fault_leaves_the_codec_sound(self) -> None:
        codec = self.make()
        for hint, value in self.values:
            encode, decode = codec.encoder(hint), codec.decoder(hint)
            with suppress(BadRequest):
                encode(object())
            _only_bad_requests(decode, b"\xff")
            assert decode(encode(value)) == value

    @since("0.1")
    async def test_threads_may_share_it(self) -> None:
        codec = self.make()
        coders = [(codec.encoder(hint), codec.decoder(hint), value) for hint, value in self.values]

        def code() -> bool:
            return all(decode(encode(value)) == value for encode, decode, value in coders for _ in range(5))

        with ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            assert all(await asyncio.gather(*(loop.run_in_executor(pool, code) for _ in range(8))))


class EnvelopeCodecConformance(Guarded):
    """The cases for codecs that write ids, endpoint and error into the body.

    Define `make` and `bodies`:
        bodies: encoded bodies that the inner codec can read; white space around them need not survive.
    """

    bodies: ClassVar[Sequence[bytes]] = ()

    def make(self) -> EnvelopeCodec:
        """The codec."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(self)")

    @since("0.1")
    async def test_requests_survive(self) -> None:
        assert self.bodies, "the codec must carry something: set bodies"
        codec = self.make()
        for body in self.bodies:
            for number in ("0", "1", "42", str(2**31)):
                sent = Envelope(id=number, endpoint="Greeter.Hello")
                envelope, arrived = codec.unwrap_request(codec.wrap_request(sent, body))
                assert (envelope.id, envelope.endpoint) == (sent.id, sent.endpoint)
                assert arrived.strip() == body.strip()

    @since("0.1")
    async def test_responses_survive(self) -> None:
        codec = self.make()
        for body in self.bodies:
            sent = Envelope(id="7", endpoint="Greeter.Hello")
            envelope, arrived = codec.unwrap_response(codec.wrap_response(sent, body))
            assert (envelope.id, envelope.error) == ("7", "")
            assert arrived.strip() == body.strip()

    @since("0.1")
    async def test_errors_survive(self) -> None:
        codec = self.make()
        for error in ("plain", '{"id":"x","code":500,"detail":"Größe: \\"日本\\""}', "line\nline", "x" * 10_000):
            envelope, _ = codec.unwrap_response(codec.wrap_response(Envelope(id="7", error=error), b""))
            assert (envelope.id, envelope.error) == ("7", error)

    @since("0.1")
    async def test_awkward_ids_survive_or_are_bad_requests(self) -> None:
        codec = self.make()
        for number in ("", "-1", "abc", str(2**64), str(2**64 - 1), "1.5", " 1", "Größe"):
            try:
                data = codec.wrap_request(Envelope(id=number, endpoint="Greeter.Hello"), self.bodies[0])
            except BadRequest:
                continue
            envelope, _ = codec.unwrap_request(data)
            assert envelope.id == number

    @since("0.1")
    async def test_broken_envelopes_are_bad_requests_and_nothing_else(self) -> None:
        codec = self.make()
        for body in self.bodies:
            envelope = Envelope(id="7", endpoint="Greeter.Hello")
            for data in (*_HOSTILE, *_damaged(codec.wrap_request(envelope, body))):
                _only_bad_requests(codec.unwrap_request, data)
            for data in (*_HOSTILE, *_damaged(codec.wrap_response(envelope, body))):
                _only_bad_requests(codec.unwrap_response, data)


def _damaged(body: bytes) -> Iterator[bytes]:
    """The body cut short, with single bits turned, and with pieces doubled; the same ones in every run."""
    chance = random.Random(len(body))
    sample = body[:2000]
    for end in sorted(chance.sample(range(len(sample)), min(len(sample), 40))):
        yield sample[:end]
    for _ in range(100 if sample else 0):
        spoilt = bytearray(sample)
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        yield bytes(spoilt)
    yield body + body
    yield body + b"\0"


def _only_bad_requests(decode: Callable[[bytes], Any], body: bytes) -> None:
    with suppress(BadRequest):
        decode(body)
