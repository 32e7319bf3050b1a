"""Protobuf messages in json-rpc: the JSON that Go's `encoding/json` makes of generated structs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pymicro.codec import JsonCodec, JsonRpcCodec
from pymicro.errors import BadRequest

Messages = Callable[[str], Any]

#: proto3 JSON, and the same message as a Go struct.
PAIRS: dict[str, tuple[str, str]] = {
    "nested": ('{"inner":{"s":"i","n":"1"}}', '{"inner":{"s":"i","n":1},"Kind":null}'),
    "nested and empty": ('{"inner":{}}', '{"inner":{},"Kind":null}'),
    "repeated": ('{"packed":[1,2],"colors":[1,"RED"]}', '{"packed":[1,2],"colors":[1,0],"Kind":null}'),
    "repeated messages": ('{"list":[{"s":"a"},{}]}', '{"list":[{"s":"a"},{}],"Kind":null}'),
    "map": ('{"labels":{"k":"v"}}', '{"labels":{"k":"v"},"Kind":null}'),
    "map of messages": ('{"byId":{"7":{"n":"1"}}}', '{"by_id":{"7":{"n":1}},"Kind":null}'),
    "oneof": ('{"name":"n"}', '{"Kind":{"Name":"n"}}'),
    "oneof with its zero value": ('{"number":"0"}', '{"Kind":{"Number":0}}'),
    "oneof message": ('{"obj":{"n":"9"}}', '{"Kind":{"Obj":{"n":9}}}'),
    "optional": ('{"opt":""}', '{"Kind":null,"opt":""}'),
    "float": ('{"flt":0.3,"dbl":0.1}', '{"flt":0.3,"dbl":0.1,"Kind":null}'),
    "bytes": ('{"data":"AP/+EA=="}', '{"data":"AP/+EA==","Kind":null}'),
    "time": ('{"ts":"1970-01-01T00:00:01.5Z"}', '{"Kind":null,"ts":{"seconds":1,"nanos":500000000}}'),
    "wrappers": ('{"w64":"0","ws":"w"}', '{"Kind":null,"w64":{},"ws":{"value":"w"}}'),
    "struct": (
        '{"st":{"a":1.5,"b":[true,null]}}',
        '{"Kind":null,"st":{"fields":{"a":{"Kind":{"NumberValue":1.5}},'
        '"b":{"Kind":{"ListValue":{"values":[{"Kind":{"BoolValue":true}},{"Kind":{"NullValue":0}}]}}}}}}',
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_both_forms_are_read_and_gos_is_written(case: str, messages: Messages) -> None:
    codec, cls = JsonRpcCodec().inner, messages("vec.All")
    proto3, struct = PAIRS[case]
    message = codec.decoder(cls)(struct.encode())
    assert message == codec.decoder(cls)(proto3.encode())
    assert json.loads(codec.encoder(cls)(message)) == json.loads(struct)


def test_unknown_fields_and_nulls_are_ignored(messages: Messages) -> None:
    decode = JsonRpcCodec().inner.decoder(messages("vec.All"))
    message = decode(b'{"nope":1,"str":"a","inner":null,"list":null,"Kind":null,"big_int":"5","color":"GREEN"}')
    assert (message.str, message.big_int, message.color) == ("a", 5, 1)
    assert not message.HasField("inner")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"str":5}', "str"),
        (b'{"i32":"x"}', "i32"),
        (b'{"i32":2147483648}', "i32"),
        (b'{"color":"PINK"}', "color"),
        (b'{"flag":"yes"}', "flag"),
        (b'{"data":5}', "data"),
        (b'{"list":{}}', "list"),
        (b'{"list":[{},{"n":[]}]}', r"list\[1\]\.n"),
        (b'{"packed":["x"]}', "packed"),
        (b'{"labels":[]}', "labels"),
        (b'{"labels":{"a":1}}', "labels"),
        (b'{"by_id":{"x":{}}}', "by_id"),
        (b'{"by_id":{"7":5}}', r"by_id\.7"),
        (b'{"inner":"x"}', "inner"),
        (b'{"Kind":{"Nope":1}}', "Kind: has no member Nope"),
        (b'{"Kind":{"Number":"x"}}', r"Kind\.Number"),
        (b"5", "expected object"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_named(body: bytes, field: str, messages: Messages) -> None:
    with pytest.raises(BadRequest, match=rf"body does not fit vec\.All: {field}"):
        JsonRpcCodec().inner.decoder(messages("vec.All"))(body)


def test_keys_of_maps(messages: Messages) -> None:
    codec, cls = JsonRpcCodec().inner, messages("test.Keys")
    message = codec.decoder(cls)(b'{"by_truth":{"true":"yes","false":"no"},"by_name":{"a":"AA=="}}')
    assert dict(message.by_truth) == {True: "yes", False: "no"}
    assert codec.decoder(cls)(codec.encoder(cls)(message)) == message
    assert b'"true":"yes"' in codec.encoder(cls)(message)
    with pytest.raises(BadRequest, match="by_truth"):
        codec.decoder(cls)(b'{"by_truth":{"maybe":"x"}}')


def test_json_of_messages_of_older_go_micro_is_read(messages: Messages) -> None:
    decode = JsonCodec().decoder
    assert decode(messages("google.protobuf.StringValue"))(b'{"value":"hi"}\n').value == "hi"
    message = decode(messages("vec.All"))(b'{"big_int":5,"color":2,"Kind":{"Name":"n"},"ts":{"seconds":1}}\n')
    assert (message.big_int, message.color, message.name, message.ts.seconds) == (5, 2, "n", 1)
