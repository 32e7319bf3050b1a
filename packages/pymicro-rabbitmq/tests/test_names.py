"""What AMQP can carry."""

from __future__ import annotations

from typing import Any

import pytest

from pymicro.errors import BackendRefused, TooLarge
from pymicro_rabbitmq import check_key, check_name, check_table, text


@pytest.mark.parametrize("key", ["a.*", "#", "*.a", "x" * 256, "ß" * 128, "\ud800"])
def test_keys_that_rabbitmq_cannot_have(key: str) -> None:
    with pytest.raises(BackendRefused, match="topic"):
        check_key("topic", key)


@pytest.mark.parametrize("key", ["", "a/#", "a*", "x" * 255])
def test_keys_that_only_look_so(key: str) -> None:
    check_key("topic", key)


def test_names_may_have_wildcards() -> None:
    check_name("queue", "a.*")
    with pytest.raises(BackendRefused, match=r"queue .* 256 bytes"):
        check_name("queue", "x" * 256)


@pytest.mark.parametrize("table", [{}, {"x" * 128: ""}, {"a": "x" * 100_000}, {"a": "日" * 40_000}])
def test_headers_that_fit(table: dict[str, str]) -> None:
    check_table(table)


@pytest.mark.parametrize("table", [{"a": "日" * 50_000}, {f"name-{each}": "x" * 1000 for each in range(200)}])
def test_headers_that_do_not_fit_into_a_frame(table: dict[str, str]) -> None:
    with pytest.raises(TooLarge, match="131072"):
        check_table(table)


@pytest.mark.parametrize("name", ["x" * 129, "ß" * 65])
def test_headers_whose_names_are_too_long(name: str) -> None:
    with pytest.raises(BackendRefused, match="128 bytes"):
        check_table({name: ""})


@pytest.mark.parametrize(
    ("value", "read"), [("a", "a"), (b"\xff", "\ufffd"), (7, "7"), (True, "true"), (None, "None"), ([1], "[1]")]
)
def test_values_that_are_no_text_become_it(value: Any, read: str) -> None:
    assert text(value) == read
