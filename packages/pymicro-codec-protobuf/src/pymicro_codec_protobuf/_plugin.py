"""The protobuf codecs, as plugins. Nothing of protobuf is imported here."""

from __future__ import annotations

from pymicro.plugins import Plugin, hookimpl


@hookimpl
def pymicro_plugins() -> list[Plugin]:
    """Bare messages, and messages in go-micro's envelope."""
    return [
        Plugin(
            kind="codec",
            name="protobuf",
            api=(1, 0),
            target="pymicro_codec_protobuf._protobuf:ProtobufCodec",
            aliases=("proto",),
            content_types=("application/protobuf", "application/proto"),
        ),
        Plugin(
            kind="codec",
            name="proto_rpc",
            api=(1, 0),
            target="pymicro_codec_protobuf._proto_rpc:ProtoRpcCodec",
            aliases=("protorpc", "proto-rpc"),
            content_types=("application/proto-rpc",),
        ),
    ]
