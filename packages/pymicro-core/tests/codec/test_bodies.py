"""One order in every kind of type that a handler may have: what fits is read and written, what does not is named."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NotRequired, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from pymicro.codec import Decode, JsonCodec, JsonRpcCodec
from pymicro.errors import BadRequest


@dataclasses.dataclass
class DataItem:
    sku: str
    quantity: int = 0


@dataclasses.dataclass
class DataOrder:
    name: str
    count: int = 0
    price: float = 0.0
    paid: bool = False
    data: bytes = b""
    tags: list[str] = dataclasses.field(default_factory=list)
    items: list[DataItem] = dataclasses.field(default_factory=list)
    stock: dict[str, int] = dataclasses.field(default_factory=dict)
    first: DataItem | None = None


class StructItem(msgspec.Struct):
    sku: str
    quantity: int = 0


class StructOrder(msgspec.Struct):
    name: str
    count: int = 0
    price: float = 0.0
    paid: bool = False
    data: bytes = b""
    tags: list[str] = []
    items: list[StructItem] = []
    stock: dict[str, int] = {}
    first: StructItem | None = None


@attrs.define
class AttrsItem:
    sku: str
    quantity: int = 0


@attrs.define
class AttrsOrder:
    name: str
    count: int = 0
    price: float = 0.0
    paid: bool = False
    data: bytes = b""
    tags: list[str] = attrs.field(factory=list)
    items: list[AttrsItem] = attrs.field(factory=list)
    stock: dict[str, int] = attrs.field(factory=dict)
    first: AttrsItem | None = None


class PydanticItem(pydantic.BaseModel):
    sku: str
    quantity: int = 0


class PydanticOrder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, val_json_bytes="base64", ser_json_bytes="base64")

    name: str
    count: int = 0
    price: float = 0.0
    paid: bool = False
    data: bytes = b""
    tags: list[str] = []
    items: list[PydanticItem] = []
    stock: dict[str, int] = {}
    first: PydanticItem | None = None


@pydantic.dataclasses.dataclass
class PydanticDataOrder:
    name: Annotated[str, pydantic.Field(strict=True)]
    count: Annotated[int, pydantic.Field(strict=True)] = 0
    price: Annotated[float, pydantic.Field(strict=True)] = 0.0
    paid: Annotated[bool, pydantic.Field(strict=True)] = False
    data: Annotated[str, pydantic.Field(strict=True)] = ""
    tags: list[str] = dataclasses.field(default_factory=list)
    items: list[PydanticItem] = dataclasses.field(default_factory=list)
    stock: dict[str, int] = dataclasses.field(default_factory=dict)
    first: PydanticItem | None = None


class DictItem(TypedDict):
    sku: str
    quantity: NotRequired[int]


class DictOrder(TypedDict):
    name: str
    count: NotRequired[int]
    price: NotRequired[float]
    paid: NotRequired[bool]
    data: NotRequired[bytes]
    tags: NotRequired[list[str]]
    items: NotRequired[list[DictItem]]
    stock: NotRequired[dict[str, int]]
    first: NotRequired[DictItem | None]


@dataclasses.dataclass
class MixedOrder:
    """Pydantic inside a dataclass."""

    name: str
    count: int = 0
    price: float = 0.0
    paid: bool = False
    data: bytes = b""
    tags: list[str] = dataclasses.field(default_factory=list)
    items: list[PydanticItem] = dataclasses.field(default_factory=list)
    stock: dict[str, int] = dataclasses.field(default_factory=dict)
    first: PydanticItem | None = None


TYPES: dict[str, Any] = {
    "dataclass": DataOrder,
    "msgspec": StructOrder,
    "attrs": AttrsOrder,
    "pydantic": PydanticOrder,
    "pydantic dataclass": PydanticDataOrder,
    "typeddict": DictOrder,
    "mixed": MixedOrder,
    "protobuf": "test.Order",
    "dict": dict[str, Any],
}

Messages = Callable[[str], Any]


@pytest.fixture(params=TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def order(kind: str, messages: Messages) -> Any:
    return messages(TYPES[kind]) if kind == "protobuf" else TYPES[kind]


GOOD: dict[str, Any] = {
    "only what is required": {"name": "John"},
    "every scalar": {"name": "John", "count": 3, "price": 9.5, "paid": True},
    "other scripts and quotes": {"name": 'é中😀 "\\/ \u2028 <&>'},
    "control characters": {"name": "\x00\x1f\n\t"},
    "empty text": {"name": ""},
    "negative": {"name": "n", "count": -(2**31)},
    "float without a fraction": {"name": "n", "price": 2.0},
    "very small and very large": {"name": "n", "price": 1e-300},
    "bytes": {"name": "n", "data": "AAEC"},
    "list": {"name": "n", "tags": ["a", "", "ü"]},
    "long list": {"name": "n", "tags": ["x"] * 5000},
    "nested": {"name": "n", "items": [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 2}]},
    "one nested": {"name": "n", "first": {"sku": "a", "quantity": 7}},
    "map": {"name": "n", "stock": {"a": 1, "ключ": 2}},
    "long text": {"name": "x" * 200_000},
}

BAD: dict[str, tuple[bytes, str]] = {
    "text is a number": (b'{"name":1}', "name"),
    "text is a list": (b'{"name":["a"]}', "name"),
    "text is an object": (b'{"name":{"a":1}}', "name"),
    "number is text": (b'{"name":"n","count":"many"}', "count"),
    "number has a fraction": (b'{"name":"n","count":1.5}', "count"),
    "number is an object": (b'{"name":"n","count":{}}', "count"),
    "float is text": (b'{"name":"n","price":"dear"}', "price"),
    "float is a list": (b'{"name":"n","price":[1]}', "price"),
    "truth is text": (b'{"name":"n","paid":"yes"}', "paid"),
    "list is a number": (b'{"name":"n","tags":5}', "tags"),
    "list of the wrong thing": (b'{"name":"n","tags":["a",1]}', "tags"),
    "nested has the wrong type": (b'{"name":"n","items":[{"sku":"a"},{"sku":"b","quantity":"x"}]}', "quantity"),
    "nested is text": (b'{"name":"n","items":["a"]}', "items"),
    "one nested has the wrong type": (b'{"name":"n","first":{"sku":1}}', "first.sku"),
    "map is a list": (b'{"name":"n","stock":[1]}', "stock"),
    "map of the wrong thing": (b'{"name":"n","stock":{"a":"b"}}', "stock"),
}

BROKEN: dict[str, bytes] = {
    "list": b"[]",
    "text": b'"name"',
    "number": b"5",
    "cut off": b'{"name":"Jo',
    "no JSON": b"name=John",
    "byte order mark": b'\xef\xbb\xbf{"name":"John"}',
    "no UTF-8": b'{"name":"\xff"}',
    "half a character": b'{"name":"\\ud800"}',
    "NaN": b'{"name":"n","price":NaN}',
    "white space": b" \n",
    "deep": b'{"name":' + b"[" * 50_000,
    "deep objects": b'{"a":' * 50_000,
    "zero byte": b"\x00",
}


@pytest.mark.parametrize("case", GOOD)
def test_what_fits_survives(case: str, kind: str, order: Any) -> None:
    codec, wanted = JsonCodec(), GOOD[case]
    decode, encode = codec.decoder(order), codec.encoder(order)
    value = decode(json.dumps(wanted).encode())
    written = encode(value)
    assert decode(written) == value
    assert written.endswith(b"\n")
    assert wanted.items() <= {**json.loads(written), **_left_out(kind, wanted)}.items()


def _left_out(kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Protobuf does not write what has its zero value."""
    return {name: value for name, value in wanted.items() if not value} if kind == "protobuf" else {}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case: str, kind: str, order: Any) -> None:
    if kind == "dict":
        order = DictOrder  # a plain dict takes anything
    body, field = BAD[case]
    with pytest.raises(BadRequest) as caught:
        JsonCodec().decoder(order)(body)
    head, _, rest = caught.value.detail.partition(": ")
    assert head.startswith("body does not fit ")
    assert field in rest


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_order_at_all_is_refused(case: str, order: Any) -> None:
    with pytest.raises(BadRequest):
        JsonCodec().decoder(order)(BROKEN[case])


def test_a_missing_field_is_named_and_no_body_is_an_empty_object(kind: str, order: Any) -> None:
    decode = JsonCodec().decoder(order)
    if kind in ("protobuf", "dict"):
        assert decode(b"") == decode(b"{}") == order()
        return
    for body in (b"", b"{}"):
        with pytest.raises(BadRequest, match=r"name: (required field is missing|field required)"):
            decode(body)


@pytest.mark.parametrize("rest", [b"xyz", b' {"name":"other"}', b"\n\n]", b"\x00"])
def test_what_follows_the_first_value_is_ignored(rest: bytes, order: Any) -> None:
    decode = JsonCodec().decoder(order)
    assert decode(b' {"name":"John"}' + rest) == decode(b'{"name":"John"}')


def test_unknown_fields_are_ignored_except_in_messages(kind: str, order: Any) -> None:
    decode = JsonCodec().decoder(order)
    body = b'{"name":"John","nope":1}'
    if kind == "protobuf":
        with pytest.raises(BadRequest, match=r"test\.Order: nope: unknown field"):
            decode(body)
    elif kind == "dict":
        assert decode(body) == {"name": "John", "nope": 1}
    else:
        assert decode(body) == decode(b'{"name":"John"}')


def test_a_value_of_another_type_is_not_written(order: Any) -> None:
    with pytest.raises(BadRequest, match=r"cannot encode .*: got list"):
        JsonCodec().encoder(order)([1])


SEEDS = [json.dumps(value).encode() for case, value in GOOD.items() if not case.startswith("long")]
SEEDS += [body for body, _ in BAD.values()]


#: How many hostile bodies, and which. `PYMICRO_FUZZ=1000000` is a long test.
INPUTS = int(os.environ.get("PYMICRO_FUZZ", "1000"))
SEED = int(os.environ.get("PYMICRO_FUZZ_SEED", "20240229"))


def mutants(seeds: list[bytes]) -> Iterator[bytes]:
    """Bodies with bytes changed, dropped, doubled and swapped."""
    dice = random.Random(SEED)
    for _ in range(INPUTS):
        body = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 6)):
            at, what = dice.randrange(len(body) + 1), dice.randrange(5)
            if what == 0:
                body[at : at + 1] = bytes([dice.randrange(256)])
            elif what == 1:
                del body[at : at + dice.randint(1, 5)]
            elif what == 2:
                body[at:at] = dice.choice(_TOKENS)
            elif what == 3:
                body[at:at] = body[: dice.randint(0, 20)]
            else:
                body = body[:at] + bytearray(dice.choice(seeds))[at:]
        yield bytes(body) if dice.random() > 0.05 else dice.randbytes(dice.randint(0, 60))


_TOKENS = [
    b"null",
    b"[",
    b"{",
    b"]",
    b"}",
    b'"',
    b"\\ud83d",
    b"1e999",
    b"-0",
    b"9" * 5000,
    b":",
    b",",
    b"true",
    b"\x00",
]


def survives(decode: Callable[[bytes], Any], bodies: Iterator[bytes]) -> None:
    refused = silent = 0
    for body in bodies:
        try:
            decode(body)
        except BadRequest as error:
            refused += 1
            silent += not error.detail
    assert refused
    assert not silent


def test_no_input_raises_anything_but_bad_request(order: Any) -> None:
    survives(JsonCodec().decoder(order), mutants(SEEDS))


@pytest.mark.parametrize("of", [Any, str, int, list[int], dict[str, int] | None, float], ids=str)
def test_no_input_of_a_plain_type_raises_anything_but_bad_request(of: Any) -> None:
    survives(JsonCodec().decoder(of), mutants([*SEEDS, b"5", b'"a"', b"[1,2]", b"1.5"]))


def test_no_input_of_a_message_in_an_envelope_raises_anything_but_bad_request(messages: Messages) -> None:
    decode: Decode = JsonRpcCodec().inner.decoder(messages("test.Order"))
    survives(decode, mutants(SEEDS))


@pytest.mark.parametrize("unwrap", ["unwrap_request", "unwrap_response"])
def test_no_envelope_raises_anything_but_bad_request(unwrap: str) -> None:
    seeds = [
        b'{"params":[{"name":"x"}],"id":"0","method":"Greeter.Hello"}\n',
        b'{"id":"55","result":{"msg":"Hello j"},"error":null}\n',
        b'{"id":3,"result":null,"error":"boom"}',
    ]
    survives(getattr(JsonRpcCodec(), unwrap), mutants(seeds))
