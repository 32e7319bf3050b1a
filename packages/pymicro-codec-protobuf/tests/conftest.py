"""A message with a field of each kind, built from the .proto file beside the tests."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from grpc_tools import protoc

DATA = Path(__file__).parent / "data"

#: What the message imports; a file can be added to the pool when all of these are in it.
IMPORTED = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The class `vec.All`: a field of each kind."""
    path = tmp_path_factory.mktemp("proto") / "set.binpb"
    known = str(files("grpc_tools").joinpath("_proto"))
    assert protoc.main(["protoc", f"-I{DATA}", f"-I{known}", f"--descriptor_set_out={path}", "codecs.proto"]) == 0
    pool = descriptor_pool.DescriptorPool()
    for module in IMPORTED:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("vec.All"))
