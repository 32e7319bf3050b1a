"""Which codec serves a content type."""

from __future__ import annotations

import importlib
import logging

import pytest

from pymicro.codec import BytesCodec, Codec, CodecTable, EnvelopeCodec, JsonCodec, JsonRpcCodec, TextCodec
from pymicro.codec import _plugin as plugin_module
from pymicro.errors import BadRequest
from pymicro.plugins import API_VERSION, Build, NoOptions


def broken() -> Codec:
    raise ImportError("no module named 'snappy'")


@pytest.mark.parametrize(
    ("content_type", "cls"),
    [
        ("application/json", JsonCodec),
        ("application/json-rpc", JsonRpcCodec),
        ("application/octet-stream", BytesCodec),
        ("text/plain", TextCodec),
        ("application/json; charset=utf-8", JsonCodec),
        ("Application/JSON", JsonCodec),
        (" text/plain ;charset=us-ascii", TextCodec),
    ],
)
def test_the_core_has_a_codec(content_type: str, cls: type) -> None:
    assert type(CodecTable.default().get(content_type)) is cls


@pytest.mark.parametrize("content_type", ["", "application/jsonp", "text/html", "json", "application/msgpack; a=b"])
def test_an_unknown_content_type_is_refused_with_what_is_known(content_type: str) -> None:
    with pytest.raises(BadRequest) as caught:
        CodecTable.default().get(content_type)
    assert caught.value.detail == (
        f"unsupported Content-Type: {content_type} "
        "(known: application/json, application/json-rpc, application/octet-stream, text/plain)"
    )


def test_a_long_content_type_is_cut_in_the_error() -> None:
    with pytest.raises(BadRequest) as caught:
        CodecTable.default().get("x" * 100_000)
    assert len(caught.value.detail) < 500


def test_a_codec_is_built_when_it_is_needed_and_once() -> None:
    built: list[Codec] = []

    def build() -> Codec:
        built.append(BytesCodec())
        return built[-1]

    table = CodecTable([(("a/a", "b/b"), build, "ab")])
    assert not built
    assert table.get("a/a") is table.get("b/b") is table.get("a/a; x=y") is built[0]
    assert len(built) == 1


def test_the_first_of_two_with_one_content_type_counts() -> None:
    table = CodecTable([(("a/a", "b/b"), BytesCodec, "first"), (("b/b",), TextCodec, "second")])
    assert [type(table.get(name)) for name in ("a/a", "b/b")] == [BytesCodec, BytesCodec]


def test_a_broken_codec_is_logged_once_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    table = CodecTable([(("a/snappy",), broken, "snappy"), (("a/a",), BytesCodec, "bytes")])
    with caplog.at_level(logging.INFO, "pymicro"):
        for _ in range(3):
            with pytest.raises(BadRequest, match=r"a/snappy: codec snappy cannot be used: no module .*\(known: a/a\)$"):
                table.get("a/snappy")
    assert len(caplog.records) == 1
    assert table.content_types == ("a/a",)
    assert type(table.get("a/a")) is BytesCodec


def test_a_broken_codec_keeps_its_cause() -> None:
    with pytest.raises(BadRequest) as caught:
        CodecTable([(("a/a",), broken, "a")]).get("a/a")
    assert isinstance(caught.value.__cause__, ImportError)


def test_the_core_describes_its_codecs_as_plugins() -> None:
    plugins = {plugin.name: plugin for plugin in plugin_module.pymicro_plugins()}
    assert list(plugins) == ["json", "json_rpc", "bytes", "text"]
    for plugin in plugins.values():
        assert (plugin.kind, plugin.api[0]) == ("codec", API_VERSION[0])
        module, _, name = plugin.target.partition(":")
        codec = getattr(importlib.import_module(module), name)(NoOptions(), Build())
        assert isinstance(codec, (Codec, EnvelopeCodec))
        assert type(codec) is type(CodecTable.default().get(plugin.content_types[0]))
