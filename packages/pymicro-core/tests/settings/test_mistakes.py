"""Every mistake is an error that names the flag, variable or keyword, the value, and what was expected."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from pymicro.errors import ConfigurationError, InvalidOption
from pymicro.plugins.toolkit import option


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, option("Where the service runs.")]


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    pin: Annotated[int, option("Four digits.", secret=True)] = 0


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    registry: Annotated[str, option("A name that is taken.")] = ""


class Fussy(msgspec.Struct, frozen=True, kw_only=True):
    low: Annotated[int, option("A bound.")] = 0
    high: Annotated[int, option("A bound.")] = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--registri=memory"], r"unknown flag --registri\. Did you mean --registry"),
        (["--client-retires", "3"], r"unknown flag --client-retires\. Did you mean --client_retries"),
        (["-registry=memory"], r"unknown flag -registry\. Did you mean --registry"),
        (["--qqq"], r"unknown flag --qqq\. See --help"),
        (["--registry_etcd_timeout=5"], "an option of the registry plugin 'etcd', which is not chosen"),
        (["memory"], "unexpected argument 'memory'"),
        (["--client_retries"], "--client_retries needs a value: a whole number, at least 0"),
        (["--client_retries", "--tls_secure"], "--client_retries needs a value"),
        (["--broker"], "--broker needs a value: a name"),
        (["--client_retries=many"], "flag --client_retries: expected a whole number, at least 0; 'many' does not fit"),
        (["--client_request_timeout=0"], "expected a duration like 30, 5s or 1m30s, more than 0s; '0' does not fit"),
        (["--max_message_size=4apples"], "flag --max_message_size: expected a size like 65536, 64k or 4MiB"),
        (["--tls_secure=perhaps"], "flag --tls_secure: expected true or false; 'perhaps' does not fit"),
        (["--tls_secure", "true"], "unexpected argument 'true'"),
        (["--log_level=loud"], "expected one of trace, debug, info, warn, warning, error, fatal; 'loud' does not fit"),
        (["--server_metadata=zone"], "expected key=value pairs, separated by commas; 'zone' does not fit"),
    ],
)
def test_on_the_command_line(resolve: Any, argv: list[str], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        resolve(*argv)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"MICRO_CLIENT_RETRIES": "many"}, "environment MICRO_CLIENT_RETRIES: expected a whole number, at least 0; 'm"),
        ({"MICRO_REGISTER_TTL": "-1"}, "environment MICRO_REGISTER_TTL: expected a duration"),
    ],
)
def test_in_the_environment(resolve: Any, environ: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        resolve(environ=environ)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"registy": "memory"}, r"unknown keyword registy\. Did you mean registry"),
        (
            {"client_retries": "many"},
            "keyword client_retries: expected a whole number, at least 0; 'many' does not fit",
        ),
        ({"client_retries": None}, "keyword client_retries: .* None does not fit"),
        ({"server_name": 5}, "keyword server_name: expected text, not empty; 5 does not fit"),
        ({"metadata": {"a": 1}}, "keyword metadata: expected key=value pairs"),
    ],
)
def test_in_keywords(resolve: Any, keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        resolve(**keywords)


def test_in_init(resolve: Any) -> None:
    with pytest.raises(InvalidOption, match=r"unknown init keyword registy\. Did you mean registry"):
        resolve(overrides={"registy": "memory"})


def test_a_value_that_a_stronger_source_replaces_is_not_read(resolve: Any) -> None:
    assert resolve("--client_retries=1", environ={"MICRO_CLIENT_RETRIES": "many"}).client.retries == 1


def test_a_required_flag_of_the_program(resolve: Any) -> None:
    assert resolve("--region=eu", flags=Needs).flags.region == "eu"
    with pytest.raises(InvalidOption, match=r"--region is required: Where the service runs\. Give text"):
        resolve(flags=Needs)


def test_a_secret_that_does_not_fit_stays_secret(resolve: Any) -> None:
    with pytest.raises(InvalidOption, match="flag --pin: expected a whole number; this value does not fit") as caught:
        resolve("--pin=geheim", flags=Secret)

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_flag_of_the_program_may_not_hide_one_of_the_service(resolve: Any) -> None:
    with pytest.raises(InvalidOption, match=r"--registry would be of both the choice of plugins and This program"):
        resolve(flags=Taken)


def test_a_struct_that_refuses_its_values(resolve: Any) -> None:
    with pytest.raises(InvalidOption, match="This program: low is above high"):
        resolve("--low=10", flags=Fussy)


def test_flags_that_are_no_struct(resolve: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is no msgspec\.Struct with options"):
        resolve(flags=dict)
