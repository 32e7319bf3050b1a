"""Where values come from, which one counts, and that the service can say so."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from pymicro.errors import InvalidOption
from pymicro.plugins.toolkit import option
from pymicro.settings import Settings


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """A program's own flags."""

    region: Annotated[str, option("Where the service runs.", env="REGION")] = "eu"
    token: Annotated[str, option("What it shows at the door.", secret=True)] = ""
    workers: Annotated[int, option("How many.", ge=1)] = 4


def line(settings: Settings, name: str) -> str:
    return next(text for text in settings.provenance() if text.startswith(f"{name}="))


def test_defaults(resolve: Any) -> None:
    settings = resolve()

    assert settings.client.request_timeout == 30.0
    assert settings.server.version == "latest"
    assert settings.limits.message == 4 * 1024 * 1024
    assert settings.tls.enabled is False
    assert settings.log_level == "INFO"
    assert settings.flags is None


@pytest.mark.parametrize(
    ("sources", "address", "source"),
    [
        (1, ":1", "keyword server_address"),
        (2, ":2", "environment MICRO_SERVER_ADDRESS"),
        (3, ":3", "flag --server_address"),
        (4, ":4", "init keyword server_address"),
    ],
)
def test_each_source_is_stronger_than_the_one_before(resolve: Any, sources: int, address: str, source: str) -> None:
    settings = resolve(
        *(["--server_address=:3"] if sources >= 3 else []),
        environ={"MICRO_SERVER_ADDRESS": ":2"} if sources >= 2 else {},
        overrides={"server_address": ":4"} if sources >= 4 else {},
        server_address=":1",
    )

    assert settings.server.address == address
    assert line(settings, "server_address") == f"server_address={address} ({source})"


@pytest.mark.parametrize(
    ("sources", "source"),
    [
        (1, "keyword selector"),
        (2, "environment MICRO_SELECTOR"),
        (3, "flag --selector"),
        (4, "init keyword selector"),
    ],
)
def test_the_same_order_holds_for_the_choice_of_plugins(resolve: Any, sources: int, source: str) -> None:
    settings = resolve(
        *(["--selector", "cache"] if sources >= 3 else []),
        environ={"MICRO_SELECTOR": "cache"} if sources >= 2 else {},
        overrides={"selector": "cache"} if sources >= 4 else {},
        selector="cache",
    )

    assert line(settings, "selector") == f"selector=registry ({source})"


def test_maps_are_merged_key_by_key(resolve: Any) -> None:
    settings = resolve(
        "--server_metadata=zone=c",
        "--server-metadata",
        "rack=7",
        environ={"MICRO_SERVER_METADATA": "zone=b,tier=1"},
        metadata={"zone": "a", "type": "helloworld"},
    )

    assert settings.server.metadata == {"zone": "c", "type": "helloworld", "tier": "1", "rack": "7"}
    assert line(settings, "server_metadata").endswith(
        "(keyword metadata, environment MICRO_SERVER_METADATA, flag --server_metadata)"
    )


def test_short_keywords(resolve: Any) -> None:
    server = resolve(name="greeter", version="1.2.3", metadata={"a": "b"}).server

    assert (server.name, server.version, server.metadata) == ("greeter", "1.2.3", {"a": "b"})
    with pytest.raises(InvalidOption, match="server_version and version are one option"):
        resolve(version="1", server_version="2")


def test_an_empty_variable_counts_as_not_set(resolve: Any) -> None:
    settings = resolve(environ={"MICRO_SERVER_VERSION": "", "MICRO_CLIENT_RETRIES": ""}, version="3")

    assert settings.server.version == "3"
    assert settings.client.retries == 5


def test_variables_that_mean_nothing_here_are_ignored(resolve: Any) -> None:
    settings = resolve(environ={"MICRO_AUTH_NAMESPACE": "x", "MICRO_REGISTRY_ETCD_TIMEOUT": "soon", "PATH": "/bin"})

    assert not any("ignored" in text or "ETCD" in text for text in settings.provenance())


def test_only_what_was_given_and_the_kinds_are_explained(resolve: Any) -> None:
    settings = resolve("--client_retries=0")

    names = [text.partition("=")[0] for text in settings.provenance()]
    assert names == ["transport", "registry", "broker", "selector", "codec", "client_retries"]
    assert line(settings, "transport") == "transport=memory (keyword transport)"
    assert line(settings, "selector") == "selector=registry (default: built in)"
    assert "json" in line(settings, "codec")


def test_units(resolve: Any) -> None:
    settings = resolve(
        "--client_request_timeout=1m30s", "--max_message_size=1MiB", "--register_ttl=60", drain_delay="100ms"
    )

    assert settings.client.request_timeout == 90.0
    assert settings.limits.message == 1024 * 1024
    assert settings.server.register_ttl == 60.0
    assert settings.server.drain_delay == 0.1


def test_switches_stand_alone(resolve: Any) -> None:
    assert resolve("--tls_secure", "--client_retries=1").tls.secure is True
    assert resolve("--tls-secure=false", tls_secure=True).tls.secure is False


@pytest.mark.parametrize(("level", "name"), [("trace", "DEBUG"), ("warn", "WARNING"), ("fatal", "CRITICAL")])
def test_levels_are_those_of_go_micro(resolve: Any, level: str, name: str) -> None:
    assert resolve(environ={"MICRO_LOG_LEVEL": level}).log_level == name


def test_the_last_of_repeated_flags_counts(resolve: Any) -> None:
    assert resolve("--client_retries=1", "--client_retries=2").client.retries == 2


def test_what_follows_two_dashes_is_the_programs_own(resolve: Any) -> None:
    assert resolve("--client_retries=1", "--", "--name", "x").arguments == ("--name", "x")


def test_flags_of_the_program(resolve: Any) -> None:
    settings = resolve("--workers=2", environ={"REGION": "us", "MICRO_WORKERS": "9"}, flags=Flags)

    assert settings.flags == Flags(region="us", workers=2)
    assert line(settings, "region") == "region=us (environment REGION)"


def test_secrets_are_masked_everywhere(resolve: Any) -> None:
    settings = resolve("--token=geheim", "--broker_address=amqp://user:geheim@host:5672", flags=Flags)

    assert settings.flags.token == "geheim"
    assert line(settings, "token") == "token=*** (flag --token)"
    assert line(settings, "broker_address") == "broker_address=amqp://user:***@host:5672 (flag --broker_address)"
    assert "geheim" not in "\n".join(settings.provenance())


def test_services_do_not_share_settings(resolve: Any) -> None:
    first, second = resolve(metadata={"a": "1"}), resolve()
    first.server.metadata["b"] = "2"

    assert second.server.metadata == {}
    assert resolve().server.metadata == {}
