"""The codecs of the core, as plugins."""

from __future__ import annotations

from pymicro.plugins import Plugin, hookimpl


@hookimpl
def pymicro_plugins() -> list[Plugin]:
    """JSON, JSON-RPC, raw bytes and text."""
    return [
        Plugin(
            kind="codec",
            name="json",
            api=(1, 0),
            target="pymicro.codec._json:JsonCodec",
            content_types=("application/json",),
        ),
        Plugin(
            kind="codec",
            name="json_rpc",
            api=(1, 0),
            target="pymicro.codec._json_rpc:JsonRpcCodec",
            aliases=("jsonrpc",),
            content_types=("application/json-rpc",),
        ),
        Plugin(
            kind="codec",
            name="bytes",
            api=(1, 0),
            target="pymicro.codec._bytes:BytesCodec",
            content_types=("application/octet-stream",),
        ),
        Plugin(
            kind="codec",
            name="text",
            api=(1, 0),
            target="pymicro.codec._text:TextCodec",
            content_types=("text/plain",),
        ),
    ]
