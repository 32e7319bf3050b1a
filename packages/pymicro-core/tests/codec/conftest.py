"""Protobuf messages for the tests, built from the .proto files beside them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

DATA = Path(__file__).parent / "data"

Messages = Callable[[str], Any]


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    """A function that gives the class of a message by its full name, such as `vec.All`."""
    path = tmp_path_factory.mktemp("proto") / "set.binpb"
    known = str(files("grpc_tools").joinpath("_proto"))
    sources = sorted(each.name for each in DATA.glob("*.proto"))
    assert protoc.main(["protoc", f"-I{DATA}", f"-I{known}", f"--descriptor_set_out={path}", *sources]) == 0
    pool = descriptor_pool.Default()
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        for dependency in file.dependency:
            __import__(dependency.removesuffix(".proto").replace("/", ".") + "_pb2")
        pool.AddSerializedFile(file.SerializeToString())
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
