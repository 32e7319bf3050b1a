"""Errors: what Go writes into `Micro-Error` is read as Go reads it, and pymicro writes the same text.

The protobuf form that some vectors have, too, belongs to native gRPC, which pymicro does not speak.
"""

from __future__ import annotations

import pytest
from recorded import Recording, unescaped

from pymicro.errors import BY_CODE, REASONS, Error, from_code, from_wire, to_wire

ERRORS = Recording("errors.json")

#: Text that Go's own programs do not read back as what it was written from.
NO_OBJECT = {
    "plain": "an error of Go's standard library is its text",
    "wrapped": "an error inside of another one is the text of both",
}

#: Read as an error with nothing in it, as Go does.
EMPTY = {"multi": "several errors in one: an object with other fields"}

WRITTEN = ERRORS.names(r"[^.]*", lambda vector: vector.name not in {*NO_OBJECT, *EMPTY})


@ERRORS.check(ERRORS.names(r"parse\..*|[^.]*", lambda vector: vector.name not in {*NO_OBJECT, *EMPTY}))
def test_a_text_is_read_as_go_reads_it(name: str) -> None:
    error, meaning = from_wire(ERRORS[name].text), ERRORS[name].meaning
    assert (error.id, error.code, error.detail) == (meaning["id"], meaning["code"], meaning["detail"])
    assert type(error) is BY_CODE.get(error.code, Error)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_go_writes_is_written_the_same(name: str) -> None:
    meaning = ERRORS[name].meaning
    written = to_wire(from_code(meaning["code"], meaning["detail"], meaning["id"]))
    assert written == unescaped(ERRORS[name].data).decode().replace("\\ufffd", "\ufffd")


@pytest.mark.parametrize("name", ERRORS.names(r".*", lambda vector: bool(vector.meaning)))
def test_the_status_is_that_of_the_code(name: str) -> None:
    """Whatever came, unlike in Go: there `status` is a field of its own, though nobody fills it in otherwise."""
    code = ERRORS[name].meaning["code"]
    assert from_code(code).status == REASONS.get(code, "")
    if name in WRITTEN:
        assert from_code(code).status == ERRORS[name].meaning["status"]


@ERRORS.check(NO_OBJECT)
def test_a_text_that_is_no_object_is_the_detail(name: str) -> None:
    error = from_wire(ERRORS[name].text)
    assert (type(error), error.id, error.code, error.detail) == (Error, "", 0, ERRORS[name].text)


@ERRORS.check(EMPTY)
def test_an_object_of_another_kind_is_an_empty_error(name: str) -> None:
    error = from_wire(ERRORS[name].text)
    assert (type(error), error.id, error.code, error.detail) == (Error, "", 0, "")


def test_every_vector_has_a_check() -> None:
    assert ERRORS.unchecked == set()
