"""What go-micro wrote is read as it was meant, and what it reads is written."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pymicro.codec import Envelope, JsonCodec, JsonRpcCodec
from pymicro.errors import BadRequest

Messages = Callable[[str], Any]

VECTORS = {
    vector["name"]: vector
    for vector in json.loads((Path(__file__).parent / "data" / "go_json.json").read_text())["vectors"]
}
TOP = {"string": "StringValue", "int64": "Int64Value", "timestamp": "Timestamp", "struct": "Value", "empty": "Empty"}

#: go-micro of today refuses these, its older releases wrote them; both are read.
OLDER_FORM = {"decode.pb_json.top_string_object"}


@dataclass
class Inner:
    s: str = ""
    n: int = 0


@dataclass
class Plain:
    """The Go struct of the vectors."""

    str: str = ""
    i32: int = 0
    big_int: int = 0
    u64: int = 0
    dbl: float = 0
    flt: float = 0
    flag: bool = False
    data: bytes = b""
    inner: Inner | None = None
    list: "list[Inner]" = field(default_factory=list)
    labels: dict["__builtins__.str", "__builtins__.str"] = field(default_factory=dict)
    by_id: dict[int, Inner] = field(default_factory=dict)
    ts: datetime | None = None
    dur: int = 0
    any: Any = None
    NoTag: Any = ""


def named(prefix: str, suffix: str = "") -> list[str]:
    return [name for name in VECTORS if name.startswith(prefix) and name.endswith(suffix)]


def body(name: str) -> bytes:
    vector = VECTORS[name]
    return vector["text"].encode() if "text" in vector else base64.b64decode(vector["bytes"])


def refused(name: str) -> bool:
    return "error" in VECTORS[name].get("meaning", {})
