"""etcd: recorded keys and values are understood, and pymicro writes the same, byte for byte."""

from __future__ import annotations

import json

from recorded import Recording, unescaped
from recorded_records import record_of

from pymicro.registry.wire import read_record
from pymicro_registry_etcd._wire import prefix, write

ETCD = Recording("etcd_registry.json")

KEYS = ETCD.names(".*", lambda vector: isinstance(vector.meaning, dict) and "service" in vector.meaning)
BY_PYTHON = ETCD.names("go_watch_result_.*|python_node_go_calls")


@ETCD.check(KEYS)
def test_values_of_go_are_understood(name: str) -> None:
    assert read_record(ETCD[name].data) == record_of(ETCD[name].meaning["service"])


@ETCD.check(KEYS)
def test_keys_and_values_are_written_the_same(name: str) -> None:
    (written,) = write(record_of(ETCD[name].meaning["service"])).items()
    assert written == (ETCD[name].meaning["key"].encode(), unescaped(ETCD[name].data))


@ETCD.check(KEYS)
def test_a_lookup_covers_the_key(name: str) -> None:
    key = ETCD[name].meaning["key"].encode()
    for service in (ETCD[name].meaning["service"]["name"], None):
        start, end = prefix(service)
        assert start < key < end


@ETCD.check(["watch_put_delete"])
def test_events_of_go_concern_the_key_that_is_written(name: str) -> None:
    put, delete = json.loads(ETCD[name].data)
    record = read_record(put["value"].encode())
    assert record is not None
    assert {key.decode(): value.decode() for key, value in write(record).items()} == {put["key"]: put["value"]}
    assert (delete["type"], delete["key"]) == ("DELETE", put["key"])


@ETCD.check(BY_PYTHON)
def test_what_go_understood_is_what_is_written(name: str) -> None:
    said = json.loads(ETCD[name].data)
    service = said.get("Service", said)
    ((key, value),) = write(record_of(service)).items()
    assert {**json.loads(value), "endpoints": []} == service, "an empty list here, null from Go: the same to Go"
    if "key" in ETCD[name].meaning:
        assert key.decode() == ETCD[name].meaning["key"]


def test_every_vector_has_a_check() -> None:
    assert ETCD.unchecked == set()
