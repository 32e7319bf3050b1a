"""Headers, as those see them who go through them."""

from __future__ import annotations

import pytest

from pymicro.metadata import EMPTY, Headers


@pytest.mark.parametrize(
    ("headers", "pairs"),
    [
        (EMPTY, []),
        (Headers({"A": "1", "b": "2"}), [("A", "1"), ("b", "2")]),
        (Headers([("A", "1"), ("a", "2"), ("B", "3")]), [("A", "1"), ("B", "3")]),
        (Headers([("A", "1")]).add((("B", "2"),)), [("A", "1"), ("B", "2")]),
        (Headers([("A", "1"), ("B", "2")]).extend((("a", "3"),)), [("B", "2"), ("a", "3")]),
        (Headers.from_raw({b"A": b"1", b"a": b"2", b"B": b"3"}), [("A", "1"), ("B", "3")]),
        (Headers.from_raw({b"A": b"1"}).extend((("B", "2"),)), [("A", "1"), ("B", "2")]),
    ],
)
def test_each_name_is_gone_through_once_with_its_first_value(headers: Headers, pairs: list[tuple[str, str]]) -> None:
    assert list(headers.items()) == pairs
    assert [(name, headers[name]) for name in headers] == pairs
    assert len(headers.items()) == len(pairs)
    assert all(pair in headers.items() for pair in pairs)
    assert headers.items() == dict(pairs).items()
