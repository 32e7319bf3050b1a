"""Options: read from text and from Python values, shown to people."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import pytest

from pymicro.errors import ConfigurationError
from pymicro.plugins._options import describe_options
from pymicro.plugins.toolkit import option


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    wait: Annotated[float, option("A duration.", unit="seconds", le=3600)] = 1.0
    whole: Annotated[int, option("A duration in whole seconds.", unit="seconds")] = 90
    size: Annotated[int, option("A size.", unit="bytes")] = 65536
    share: Annotated[float, option("A number.")] = 0.5
    count: Annotated[int, option("A count.", unit="messages", ge=1)] = 7
    on: Annotated[bool, option("A switch.")] = False
    text: Annotated[str, option("Text.", min_length=1)] = "x"
    maybe: Annotated[str | None, option("Text or nothing.")] = None
    bounded: Annotated[float | None, option("A bounded duration or nothing.", unit="seconds", gt=0)] = None
    word: Annotated[Literal["a", "b"], option("One of two.")] = "a"
    level: Annotated[Level, option("An enum.")] = Level.LOW
    names: Annotated[tuple[str, ...], option("A list.")] = ()
    levels: Annotated[frozenset[Level], option("A set.")] = frozenset()
    labels: Annotated[Mapping[str, str], option("Pairs.")] = {}
    waits: Annotated[dict[str, float], option("Pairs of durations.", unit="seconds")] = {}
    password: Annotated[str, option("A secret.", secret=True)] = "geheim"
    named: Annotated[int, option("Named by itself.", flag="its_own", env="ITS_OWN")] = 1
    code_only: int = 5


OPTIONS = {described.field: described for described in describe_options(Sample, "x_")}


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        ("wait", "5", 5.0),
        ("wait", "0.25", 0.25),
        ("wait", "5s", 5.0),
        ("wait", "1m30s", 90.0),
        ("wait", "100ms", 0.1),
        ("wait", "1h", 3600.0),
        ("wait", ".5m", 30.0),
        ("wait", "1500us", 0.0015),
        ("wait", 5, 5.0),
        ("whole", "1m", 60),
        ("size", "64k", 65536),
        ("size", "4MiB", 4194304),
        ("size", "4 mib", 4194304),
        ("size", "1kB", 1000),
        ("size", "1.5k", 1536),
        ("size", "12", 12),
        ("share", "1e-1", 0.1),
        ("count", " 3 ", 3),
        ("on", "true", True),
        ("on", "1", True),
        ("on", "FALSE", False),
        ("on", "0", False),
        ("text", " a,b ", " a,b "),
        ("maybe", "", None),
        ("maybe", None, None),
        ("maybe", "null", "null"),
        ("bounded", "5s", 5.0),
        ("word", "b", "b"),
        ("level", "high", Level.HIGH),
        ("level", Level.HIGH, Level.HIGH),
        ("names", "a, b,", ("a", "b")),
        ("names", ["a", "b"], ("a", "b")),
        ("levels", "low,high", frozenset(Level)),
        ("labels", "a=1, b=x=y", {"a": "1", "b": "x=y"}),
        ("labels", "", {}),
        ("waits", "a=1m", {"a": 60.0}),
    ],
)
def test_values_that_fit(field: str, given: Any, value: Any) -> None:
    read = OPTIONS[field].read(given)

    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("wait", "soon", "a duration like 30, 5s or 1m30s, at most 1h"),
        ("wait", "2h", "a duration like 30, 5s or 1m30s, at most 1h"),
        ("wait", "-1", "a duration like 30, 5s or 1m30s, at most 1h"),
        ("wait", "nan", "a duration like 30, 5s or 1m30s, at most 1h"),
        ("wait", "1d", "a duration like 30, 5s or 1m30s, at most 1h"),
        ("wait", True, "a duration like 30, 5s or 1m30s, at most 1h"),
        ("whole", "1.5s", "a duration like 30, 5s or 1m30s"),
        ("size", "1.5", "a size like 65536, 64k or 4MiB"),
        ("size", "4 apples", "a size like 65536, 64k or 4MiB"),
        ("size", -1, "a size like 65536, 64k or 4MiB"),
        ("share", "inf", "a number"),
        ("count", "0", "a whole number, at least 1"),
        ("count", "1.5", "a whole number, at least 1"),
        ("on", "yes", "true or false"),
        ("text", "", "text, not empty"),
        ("bounded", "0", "a duration like 30, 5s or 1m30s, more than 0s"),
        ("word", "c", "one of a, b"),
        ("level", "LOW", "one of low, high"),
        ("names", 5, "a comma-separated list"),
        ("levels", "low,none", "a comma-separated list, each one of low, high"),
        ("labels", "a", "key=value pairs, separated by commas"),
        ("labels", "=1", "key=value pairs, separated by commas"),
    ],
)
def test_values_that_do_not_fit(field: str, given: Any, expected: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whoever catches it writes the text from `expected`
        OPTIONS[field].read(given)
    assert OPTIONS[field].expected == expected


@pytest.mark.parametrize(
    ("field", "type_text", "default"),
    [
        ("wait", "duration", "1s"),
        ("whole", "duration", "1m30s"),
        ("size", "size", "64KiB"),
        ("share", "number", "0.5"),
        ("count", "integer", "7"),
        ("on", "true|false", "false"),
        ("maybe", "text", ""),
        ("word", "a|b", "a"),
        ("level", "low|high", "low"),
        ("names", "list of text", ""),
        ("labels", "key=value", ""),
        ("password", "text", "***"),
    ],
)
def test_types_and_defaults_in_words(field: str, type_text: str, default: str) -> None:
    assert (OPTIONS[field].type_text, OPTIONS[field].default_text) == (type_text, default)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("wait", 0.25, "250ms"),
        ("wait", 0.0, "0s"),
        ("wait", 3725.5, "1h2m5.5s"),
        ("size", 1000, "1000"),
        ("size", 2**30, "1GiB"),
        ("names", ("a", "b"), "a,b"),
        ("labels", {"a": "1", "b": "2"}, "a=1,b=2"),
        ("password", "geheim", "***"),
        ("password", "", ""),
        ("text", "amqp://user:p/w@x@host/y", "amqp://user:***@host/y"),
        ("names", ("a://u:p@h:1", "b://h:2", "c://u@h"), "a://u:***@h:1,b://h:2,c://u@h"),
    ],
)
def test_values_are_shown_as_they_would_be_written(field: str, value: Any, text: str) -> None:
    assert OPTIONS[field].show(value) == text


def test_names() -> None:
    assert (OPTIONS["wait"].flag, OPTIONS["wait"].env) == ("x_wait", "MICRO_X_WAIT")
    assert (OPTIONS["named"].flag, OPTIONS["named"].env) == ("its_own", "ITS_OWN")
    assert "code_only" not in OPTIONS
    assert OPTIONS["count"].unit_text == "In messages."


def test_a_required_option_has_no_default() -> None:
    class Needs(msgspec.Struct, frozen=True, kw_only=True):
        region: Annotated[str, option("Where.")]

    [described] = describe_options(Needs)

    assert described.required
    assert described.default_text == ""


@pytest.mark.parametrize("annotation", [complex, dict[str, list[str]], int | str, tuple[tuple[int, ...], ...]])
def test_types_that_no_flag_can_have(annotation: Any) -> None:
    struct = msgspec.defstruct("Wrong", [("field", Annotated[annotation, option("Help.")], None)])

    with pytest.raises(ConfigurationError, match=r"Wrong\.field cannot be an option"):
        describe_options(struct)


def test_only_structs_have_options() -> None:
    with pytest.raises(ConfigurationError, match=r"is no msgspec\.Struct"):
        describe_options(dict)
