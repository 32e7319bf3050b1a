"""Codecs that break one promise each; a case that is named must find it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest

from pymicro.codec import Codec, Decode, Encode, Envelope, EnvelopeCodec, JsonCodec, JsonRpcCodec
from pymicro.errors import BadRequest, InvalidHandler
from pymicro_testing import CodecConformance, EnvelopeCodecConformance
from pymicro_testing.codec import STRUCTURED, Person

CaseFails = Callable[[object, str], Awaitable[None]]


class Wrapped(JsonCodec):
    """Sound; broken ones override a method."""


class Loses(Wrapped):
    def decoder(self, type: Any) -> Decode:
        decode = super().decoder(type)
        return lambda body: decode(body.replace("ü".encode(), b"?"))


class RaisesForeignErrors(Wrapped):
    def decoder(self, type: Any) -> Decode:
        decode = super().decoder(type)

        def decoding(body: bytes) -> Any:
            try:
                return decode(body)
            except BadRequest as error:
                raise ValueError(str(error)) from error

        return decoding


class SharesState(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[tuple[str, bytes], Any] = {}

    def decoder(self, type: Any) -> Decode:
        decode = super().decoder(type)

        def decoding(body: bytes) -> Any:
            if (str(type), body) not in self._cache:
                self._cache[str(type), body] = decode(body)
            return self._cache[str(type), body]

        return decoding


class ChangesTheValue(Wrapped):
    def encoder(self, type: Any) -> Encode:
        encode = super().encoder(type)

        def encoding(value: Any) -> bytes:
            body = encode(value)
            if isinstance(value, list):
                value.clear()
            return body

        return encoding


class IsNotThreadSafe(Wrapped):
    def __init__(self) -> None:
        super().__init__()
        self._busy = threading.Lock()

    def encoder(self, type: Any) -> Encode:
        encode = super().encoder(type)

        def encoding(value: Any) -> bytes:
            if not self._busy.acquire(blocking=False):
                raise RuntimeError("used by two threads")
            try:
                threading.Event().wait(0.001)
                return encode(value)
            finally:
                self._busy.release()

        return encoding


class BreaksAfterAFault(Wrapped):
    def decoder(self, type: Any) -> Decode:
        decode = super().decoder(type)
        faults: list[BadRequest] = []

        def decoding(body: bytes) -> Any:
            try:
                return None if faults else decode(body)
            except BadRequest as error:
                faults.append(error)
                raise

        return decoding


class WrapsBytes(Wrapped):
    def encoder(self, type: Any) -> Encode:
        return super().encoder(type) if type is not bytes else lambda value: b"raw:" + value


class TakesAnyType(Wrapped):
    def encoder(self, type: Any) -> Encode:
        try:
            return super().encoder(type)
        except InvalidHandler:
            return repr  # type: ignore[return-value]  # broken on purpose


class NamesNoField(Wrapped):
    def decoder(self, type: Any) -> Decode:
        decode = super().decoder(type)

        def decoding(body: bytes) -> Any:
            try:
                return decode(body)
            except BadRequest:
                raise BadRequest("bad") from None

        return decoding


class Suite(CodecConformance):
    """The cases on a broken codec."""

    values = STRUCTURED
    misfits: ClassVar = [(Person, "John")]
    named: ClassVar = [(Person, b'{"name": "John", "age": "old"}', "age")]
    refused: ClassVar = [type(threading.Lock())]

    def __init__(self, broken: type[Codec]) -> None:
        self.broken = broken

    def make(self) -> Codec:
        return self.broken()


BROKEN: list[tuple[type[Codec], str]] = [
    (Loses, "test_every_value_survives"),
    (RaisesForeignErrors, "test_broken_bodies_are_bad_requests_and_nothing_else"),
    (SharesState, "test_decoded_values_share_nothing"),
    (ChangesTheValue, "test_encoding_leaves_the_value_alone"),
    (IsNotThreadSafe, "test_threads_may_share_it"),
    (BreaksAfterAFault, "test_a_fault_leaves_the_codec_sound"),
    (WrapsBytes, "test_bytes_are_the_body_itself"),
    (TakesAnyType, "test_types_it_cannot_carry_are_refused_at_once"),
    (NamesNoField, "test_a_bad_request_names_the_field"),
]


@pytest.mark.parametrize(("broken", "case"), BROKEN)
async def test_the_named_case_finds_it(broken: type[Codec], case: str, case_fails: CaseFails) -> None:
    await case_fails(Suite(broken), case)


@pytest.mark.parametrize("case", sorted({case for _, case in BROKEN}))
async def test_the_same_case_passes_a_sound_one(case: str) -> None:
    await getattr(Suite(Wrapped), case)()


class MixesUpIds(JsonRpcCodec):
    def unwrap_response(self, data: bytes) -> tuple[Envelope, bytes]:
        envelope, body = super().unwrap_response(data)
        return Envelope(id="0", error=envelope.error), body


class CrashesOnGarbage(JsonRpcCodec):
    def unwrap_request(self, data: bytes) -> tuple[Envelope, bytes]:
        try:
            return super().unwrap_request(data)
        except BadRequest as error:
            raise KeyError("method") from error


class CutsErrors(JsonRpcCodec):
    def wrap_response(self, envelope: Envelope, body: bytes) -> bytes:
        return super().wrap_response(Envelope(id=envelope.id, error=envelope.error[:1000]), body)


class EnvelopeSuite(EnvelopeCodecConformance):
    """The cases on a broken envelope codec."""

    bodies: ClassVar = [b'{"name":"John"}']

    def __init__(self, broken: type[EnvelopeCodec]) -> None:
        self.broken = broken

    def make(self) -> EnvelopeCodec:
        return self.broken()


@pytest.mark.parametrize(
    ("broken", "case"),
    [
        (MixesUpIds, "test_responses_survive"),
        (CrashesOnGarbage, "test_broken_envelopes_are_bad_requests_and_nothing_else"),
        (CutsErrors, "test_errors_survive"),
    ],
)
async def test_the_named_envelope_case_finds_it(broken: type[EnvelopeCodec], case: str, case_fails: CaseFails) -> None:
    await case_fails(EnvelopeSuite(broken), case)
