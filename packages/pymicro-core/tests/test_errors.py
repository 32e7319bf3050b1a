"""Errors as text: what peers write is read, whatever it is."""

from __future__ import annotations

import pytest

from pymicro.errors import Error, NotFound, from_wire


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"id":"a","code":404,"detail":"d","status":"Not Found"}', NotFound("d", "a")),
        ('{"id":null,"code":null,"detail":"d"}', Error("d")),
        ('{"id":"a","code":404,"detail":null}', NotFound("", "a")),
        ("null", Error()),
        ("{}", Error()),
        ("", Error()),
        ("plain", Error("plain")),
        ('{"id":"a","code":404,"detail":5}', NotFound('{"id":"a","code":404,"detail":5}', "a")),
    ],
)
def test_null_is_nothing_said_and_what_is_no_error_is_the_detail(text: str, error: Error) -> None:
    read = from_wire(text)
    assert (type(read), read.id, read.code, read.detail) == (type(error), error.id, error.code, error.detail)
