"""JSON: what types it carries, and what it says of those that it does not."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType

import attrs
import msgspec
import pydantic
import pytest

from pymicro.codec import JsonCodec, JsonRpcCodec, message
from pymicro.errors import BadRequest, InvalidHandler

Messages = Callable[[str], Any]
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int = 0


class Model(pydantic.BaseModel):
    name: str
    inner: Model | None = None


class Aliased(pydantic.BaseModel):
    user_name: str = pydantic.Field(alias="userName")


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Checked:
    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")
        if self.count > 100:
            raise KeyError(self.count)


@attrs.define
class Bounded:
    count: int = attrs.field(validator=attrs.validators.le(10))


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Cat(msgspec.Struct, tag=True):
    lives: list[int]


class Dog(msgspec.Struct, tag=True):
    tricks: list[str] = []


VALUES: dict[str, tuple[Any, Any]] = {
    "text": (str, "é"),
    "number": (int, 2**70),
    "float": (float, 1.5),
    "float given as int": (float, 2),
    "truth": (bool, False),
    "none or text": (str | None, None),
    "enum": (Color, Color.BLUE),
    "enum of numbers": (Level, Level.LOW),
    "literal": (Literal["a", "b"], "b"),
    "time": (datetime, datetime(2024, 2, 29, 23, 59, 58, 123456, tzinfo=UTC)),
    "day": (date, date(2024, 2, 29)),
    "duration": (timedelta, timedelta(seconds=1.5)),
    "uuid": (uuid.UUID, uuid.UUID(int=7)),
    "decimal": (Decimal, Decimal("1.10")),
    "named tuple": (Point, Point(1, 2)),
    "tuple": (tuple[int, str], (1, "a")),
    "set": (set[int], {1, 2}),
    "abstract sequence": (Sequence[int], [1]),
    "abstract mapping": (Mapping[str, int], {"a": 1}),
    "numbers as keys": (dict[int, str], {7: "x"}),
    "new type": (UserId, UserId(3)),
    "constrained": (Annotated[int, msgspec.Meta(ge=1)], 5),
    "list of dataclasses": (list[Tree], [Tree(1, [Tree(2)])]),
    "list of models": (list[Model], [Model(name="a", inner=Model(name="b"))]),
    "map of models": (dict[str, Model | None], {"a": Model(name="b"), "c": None}),
    "model with aliases": (Aliased, Aliased(userName="u")),
    "tagged union": (Cat | Dog, Dog(tricks=["sit"])),
    "anything": (Any, {"a": [1, None, 2.5, "x"]}),
    "nothing": (Any, None),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_survive(case: str) -> None:
    codec, (of, value) = JsonCodec(), VALUES[case]
    assert codec.decoder(of)(codec.encoder(of)(value)) == value


def test_values_of_any_type_are_written_when_the_type_is_any(messages: Messages) -> None:
    encode = JsonCodec().encoder(Any)
    order = messages("test.Order")(name="o", count=1)
    values = {"model": Model(name="m"), "message": order, "data": Tree(1), "raw": b"\x00", "none": None}
    assert json.loads(encode(values)) == {
        "model": {"name": "m", "inner": None},
        "message": {"name": "o", "count": 1},
        "data": {"value": 1, "children": []},
        "raw": "AA==",
        "none": None,
    }
    assert encode(Model(name="m")) == b'{"name":"m","inner":null}\n'


def test_messages_inside_other_types(messages: Messages) -> None:
    order = messages("test.Order")
    batch = dataclasses.make_dataclass("Batch", [("orders", list[order]), ("by_name", dict[str, order])])
    codec = JsonCodec()
    value = batch([order(name="a", count=2)], {"x": order(name="b")})
    assert codec.decoder(batch)(codec.encoder(batch)(value)) == value
    with pytest.raises(BadRequest, match=r"body does not fit Batch: orders\[1\]\.count: "):
        codec.decoder(batch)(b'{"orders":[{"name":"a"},{"count":"x"}],"by_name":{}}')
    with pytest.raises(BadRequest, match=r"orders\[0\]: expected object, got array"):
        codec.decoder(batch)(b'{"orders":[[]],"by_name":{}}')


def test_a_model_inside_another_type_names_the_whole_path() -> None:
    decode = JsonCodec().decoder(dict[str, list[Model]])
    with pytest.raises(BadRequest, match=r"\[\.\.\.\]\[0\]\.inner\.name: field required$"):
        decode(b'{"a":[{"name":"n","inner":{}}]}')


@pytest.mark.parametrize(
    ("of", "body", "detail"),
    [
        (Tree, b'{"value":"x"}', "body does not fit Tree: value: expected int, got str"),
        (Tree, b'{"value":1,"children":[{"value":1},{}]}', "Tree: children[1].value: required field is missing"),
        (Tree, b"[]", "body does not fit Tree: expected object, got array"),
        (dict[int, int], b'{"x":1}', "body does not fit dict[int, int]: key: expected int, got str"),
        (Color, b'"green"', "body does not fit Color: invalid enum value 'green'"),
        (Strict, b'{"name":"n","x":1}', "Strict: object contains unknown field x"),
        (Checked, b'{"count":-1}', "body does not fit Checked: count must not be negative"),
        (list[Checked], b'[{"count":1},{"count":-1}]', "[1]: count must not be negative"),
        (Checked, b'{"count":101}', "body does not fit Checked: KeyError: 101"),
        (Bounded, b'{"count":11}', "body does not fit Bounded: 'count' must be <= 10"),
        (Model, b'{"inner":{}}', "body does not fit Model: name: field required (and 1 more)"),
        (Tree, b"\xff", "body does not fit Tree: JSON is malformed"),
        (str, b'"\xff"', "body does not fit str: text that is no UTF-8"),
        (Any, b"[" * 100_000, "nested too deeply"),
    ],
    ids=range(14),
)
def test_the_detail_names_the_field_in_plain_words(of: Any, body: bytes, detail: str) -> None:
    with pytest.raises(BadRequest) as caught:
        JsonCodec().decoder(of)(body)
    assert detail in caught.value.detail
    assert caught.value.__cause__ is not None


@dataclasses.dataclass
class Empties:
    """What Go sends as null when it is empty."""

    items: list[Tree]
    pair: tuple[int, ...]
    labels: dict[str, str]
    data: bytes
    tree: Tree | None
    name: str = "none"
    size: int | None = 3


NULLS = b'{"items":null,"pair":null,"labels":null,"data":null,"tree":null,"name":null,"size":null}'


def test_null_is_an_empty_list_map_or_bytes_as_go_writes_them() -> None:
    assert JsonCodec().decoder(Empties)(NULLS) == Empties([], (), {}, b"", None, "none", None)


def test_null_inside_lists_and_maps_and_unions() -> None:
    decode = JsonCodec().decoder
    assert decode(dict[str, list[list[int]]])(b'{"a":[null,[1]]}') == {"a": [[], [1]]}
    assert decode(list[Tree])(b'[{"value":1,"children":null}]') == [Tree(1)]
    assert decode(Cat | Dog)(b'{"type":"Dog","tricks":["sit"]}') == Dog(["sit"])
    assert decode(tuple[int, list[int]])(b"[1,null]") == (1, [])


def test_null_where_a_union_says_what_may_be_empty() -> None:
    @dataclasses.dataclass
    class Holder:
        either: list[list[int]] | str | None
        both: dict[str, list[int]] | list[list[int]]
        noted: Annotated[list[int], msgspec.Meta(extra={"x": 1})]
        inner: Annotated[list[list[int]], msgspec.Meta(extra={"x": 1})] | int = 0
        optional: Annotated[int | None, msgspec.Meta(extra={"x": 1})] = 5

    decode = JsonCodec().decoder(Holder)
    assert decode(b'{"either":[null],"both":{"a":null},"noted":null,"inner":[null],"optional":null}') == Holder(
        [[]], {"a": []}, [], [[]], None
    )
    assert decode(b'{"either":null,"both":[null],"noted":[]}') == Holder(None, [[]], [])


def test_null_for_a_required_scalar_is_an_error() -> None:
    with pytest.raises(BadRequest, match=r"Tree: value: expected int, got null"):
        JsonCodec().decoder(Tree)(b'{"value":null}')


def test_another_fault_beside_a_null_is_the_one_that_is_told() -> None:
    with pytest.raises(BadRequest, match=r"children\[0\]\.value: expected int, got str"):
        JsonCodec().decoder(Tree)(b'{"value":1,"children":[{"value":"x","children":null}]}')


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("of", [Any, dict[str, list[float]]], ids=str)
def test_a_number_that_json_does_not_have_is_not_written(of: Any, number: float) -> None:
    with pytest.raises(BadRequest, match=r"cannot encode .*: prices\[1\]: -?(nan|inf) has no form in JSON"):
        JsonCodec().encoder(of)({"prices": [1.0, number]})


def test_nulls_beside_sound_numbers_are_written() -> None:
    assert JsonCodec().encoder(Any)({"a": None, "b": 1.5}) == b'{"a":null,"b":1.5}\n'


def test_a_float_inside_a_message_in_an_envelope_must_be_a_number(messages: Messages) -> None:
    order = messages("test.Order")
    with pytest.raises(BadRequest, match="price: nan has no form in JSON"):
        JsonRpcCodec().inner.encoder(order)(order(price=math.nan))


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (Any, object()),
        (Any, {"a": {1, object()}}),
        (str, "\ud800"),
        (dict[Any, int], {(1, 2): 3}),
        (Tree, Model(name="x")),
        (str | None, 5),
        (list[int], (1,)),
        (Model, {"name": "x"}),
    ],
    ids=range(8),
)
def test_a_value_without_a_form_in_json_is_not_written(of: Any, value: Any) -> None:
    with pytest.raises(BadRequest, match="cannot encode"):
        JsonCodec().encoder(of)(value)


def test_a_cycle_is_not_written() -> None:
    tree = Tree(1)
    tree.children.append(tree)
    with pytest.raises(BadRequest, match="nested too deeply"):
        JsonCodec().encoder(Tree)(tree)


UNREADABLE = [complex, list[Callable[..., Any]], "Tree", Tree | Checked | Cat, 5]


@pytest.mark.parametrize("of", UNREADABLE, ids=str)
def test_a_type_that_json_cannot_carry_is_an_error_of_the_handler(of: Any) -> None:
    with pytest.raises(InvalidHandler, match="JSON cannot carry"):
        JsonCodec().decoder(of)


@pytest.mark.parametrize("of", [complex, dict[str, type]], ids=str)
def test_a_type_that_json_cannot_write_is_an_error_of_the_handler(of: Any) -> None:
    with pytest.raises(InvalidHandler, match="it does not know"):
        JsonCodec().encoder(of)


def test_a_pydantic_dataclass_inside_another_type_is_refused_because_its_checks_would_not_run() -> None:
    @pydantic.dataclasses.dataclass
    class Small:
        size: Annotated[int, pydantic.Field(lt=3)]

    with pytest.raises(BadRequest, match=r"size: input should be less than 3"):
        JsonCodec().decoder(Small)(b'{"size":5}')
    with pytest.raises(InvalidHandler, match="make it a BaseModel"):
        JsonCodec().decoder(list[Small])


@pytest.mark.parametrize("none", [None, type(None)])
def test_no_body_is_an_empty_object_and_reads_anything(none: Any) -> None:
    codec = JsonCodec()
    assert codec.encoder(none)(None) == b"{}\n"
    assert [codec.decoder(none)(body) for body in (b"", b"{}", b'{"a":1}', b"\xff no JSON")] == [None] * 4
    with pytest.raises(BadRequest, match="cannot encode Tree: the endpoint has no body"):
        codec.encoder(none)(Tree(1))


def test_bytes_are_the_body_as_it_is() -> None:
    codec = JsonCodec()
    assert codec.decoder(bytes)(b"\xff{") == b"\xff{"
    assert codec.encoder(bytes)(b"\xff{") == b"\xff{"
    assert codec.encoder(bytes)(bytearray(b"x")) == b"x"
    with pytest.raises(BadRequest, match="cannot encode bytes: got str"):
        codec.encoder(bytes)("x")


@message(rename="camel", integers="string")
@dataclasses.dataclass
class Profile:
    user_name: str
    follower_count: int = 0
    scores: list[int] = dataclasses.field(default_factory=list)
    by_day: dict[str, int | None] = dataclasses.field(default_factory=dict)
    is_admin: bool = False
    friend: Profile | None = None
    home: Point | None = None


PROFILE = Profile("u", 2**60, [1, 2], {"mo_nday": 5, "x": None}, True, Profile("v"), Point(1, 2))


def test_message_renames_fields_and_writes_integers_as_text() -> None:
    assert json.loads(JsonCodec().encoder(Profile)(PROFILE)) == {
        "userName": "u",
        "followerCount": str(2**60),
        "scores": ["1", "2"],
        "byDay": {"mo_nday": "5", "x": None},
        "isAdmin": True,
        "friend": {
            "userName": "v",
            "followerCount": "0",
            "scores": [],
            "byDay": {},
            "isAdmin": False,
            "friend": None,
            "home": None,
        },
        "home": ["1", "2"],
    }


def test_message_reads_what_it_writes_and_python_names_and_numbers() -> None:
    codec = JsonCodec()
    decode = codec.decoder(Profile)
    assert decode(codec.encoder(Profile)(PROFILE)) == PROFILE
    assert decode(b'{"user_name":"u","followerCount":5,"scores":null}rest') == Profile("u", 5)


def test_message_in_constrained_and_optional_fields() -> None:
    @message(integers="string")
    @dataclasses.dataclass
    class Limits:
        low: Annotated[int, msgspec.Meta(ge=0, extra={"unit": "bytes"})]
        high: int | bytes | None = None
        mark: int | str = 0
        flag: int | bool = 0
        any: Any = None

    codec = JsonCodec()
    written = codec.encoder(Limits)(Limits(1, 2, 3, True, [4]))
    assert json.loads(written) == {"low": "1", "high": "2", "mark": 3, "flag": True, "any": [4]}
    assert codec.decoder(Limits)(written) == Limits(1, 2, 3, True, [4])
    with pytest.raises(BadRequest, match=r"low: expected int >= 0"):
        codec.decoder(Limits)(b'{"low":"-1"}')


def test_message_counts_inside_other_types() -> None:
    codec = JsonCodec()
    value = {"a": [Profile("u")]}
    written = codec.encoder(dict[str, list[Profile]])(value)
    assert b'"userName":"u"' in written
    assert codec.decoder(dict[str, list[Profile]])(written) == value


def test_message_keeps_errors_that_name_the_field() -> None:
    with pytest.raises(BadRequest, match="Profile: follower_count: expected int, got str"):
        JsonCodec().decoder(Profile)(b'{"userName":"u","followerCount":"many"}')
    with pytest.raises(BadRequest, match="Profile: user_name: required field is missing"):
        JsonCodec().decoder(Profile)(b"{}")


def test_message_with_names_of_its_own() -> None:
    @message(rename={"from_": "from", "to": "To"})
    class Mail(msgspec.Struct):
        from_: str
        to: str = ""
        count: int = 1

    codec = JsonCodec()
    assert codec.encoder(Mail)(Mail("a", "b")) == b'{"from":"a","To":"b","count":1}\n'
    assert codec.decoder(Mail)(b'{"from":"a","To":"b"}') == Mail("a", "b")


def test_message_as_go_structs_without_tags_have_it() -> None:
    @message(rename="pascal")
    @attrs.define
    class Go:
        user_name: str
        id: int = 0

    assert json.loads(JsonCodec().encoder(Go)(Go("u"))) == {"UserName": "u", "Id": 0}
    assert JsonCodec().decoder(Go)(b'{"UserName":"u","Id":7}') == Go("u", 7)


def test_message_of_proto3_is_what_the_protobuf_message_reads(messages: Messages) -> None:
    @message(rename="camel", integers="string")
    @dataclasses.dataclass
    class Twin:
        big_int: int = 0
        snake_case_name: str = ""

    codec, cls = JsonCodec(), messages("vec.All")
    theirs = cls(big_int=2**60, snake_case_name="s")
    assert codec.decoder(cls)(codec.encoder(Twin)(Twin(2**60, "s"))) == theirs
    assert codec.decoder(Twin)(codec.encoder(cls)(theirs)) == Twin(2**60, "s")


def test_message_refuses_what_it_cannot_mark() -> None:
    with pytest.raises(TypeError, match="its own library"):
        message(rename="camel")(Model)
    with pytest.raises(TypeError, match="rename is"):
        message(rename="snake")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError, match="integers is"):
        message(integers="text")  # type: ignore[arg-type]  # wrong on purpose


def test_message_in_a_union_of_several_classes_is_refused() -> None:
    @message(rename="camel")
    class Marked(msgspec.Struct, tag=True):
        a: int = 0

    with pytest.raises(InvalidHandler, match="Marked has @message and cannot share a union"):
        JsonCodec().encoder(Marked | Cat)
