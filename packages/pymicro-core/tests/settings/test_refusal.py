"""A backend that refuses is named, with the flags that say who asks."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Annotated, Any

import msgspec
import pytest

from pymicro.errors import BackendRefused, BackendUnavailable, ConfigurationError
from pymicro.plugins import Plugin, enable, hookimpl
from pymicro.plugins._host import HOST, Host
from pymicro.plugins.toolkit import option


class OwlOptions(msgspec.Struct, frozen=True, kw_only=True):
    username: Annotated[str, option("Who asks.")] = ""
    password: Annotated[str, option("Its password.", secret=True)] = ""
    flock: Annotated[int, option("How many fly.")] = 3


class Owl:
    """Stands for a component."""


@pytest.fixture(autouse=True)
def owl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enable a broker and a registry called owl, for one test."""
    for name, value in vars(Host()).items():
        monkeypatch.setattr(HOST, name, value)
    module = ModuleType("owls")
    plugins = [
        Plugin(kind=kind, name="owl", api=(1, 0), target="owls:Owl", options=OwlOptions)
        for kind in ("broker", "registry")
    ]
    module.pymicro_plugins = hookimpl(lambda: plugins)  # type: ignore[attr-defined]
    module.Owl = Owl  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "owls", module)
    enable(module)


BROKER = "broker owl: see --broker_address, --broker_owl_username, --broker_owl_password"
REGISTRY = "registry owl: see --registry_address, --registry_owl_username, --registry_owl_password"


def test_the_backend_at_the_address_is_named(resolve: Any) -> None:
    settings = resolve("--broker=owl", "--broker_address=a:1,b:2", "--registry=owl", "--registry_address=c:3")
    assert settings.advice(BackendRefused("no", "b:2")) == BROKER
    assert settings.advice(BackendRefused("no", "c:3")) == REGISTRY


def test_one_without_an_address_is_at_its_own_default(resolve: Any) -> None:
    settings = resolve("--broker=owl", "--registry=owl")
    assert settings.advice(BackendRefused("no", "d:4")) == f"{REGISTRY}; {BROKER}"


def test_a_named_instance_is_told_by_its_name(resolve: Any) -> None:
    settings = resolve("--broker=alerts:owl", "--broker_address=alerts=a:1")
    assert settings.advice(BackendRefused("no", "a:1")) == BROKER.replace("broker owl", "broker.alerts owl")


def test_a_refusal_may_be_the_cause(resolve: Any) -> None:
    settings = resolve("--broker=owl", "--broker_address=a:1")
    error = ConfigurationError("cannot listen")
    error.__cause__ = BackendRefused("no", "a:1")
    assert settings.advice(error) == BROKER


@pytest.mark.parametrize("error", [BackendUnavailable("away", "a:1"), ConfigurationError("wrong"), ValueError("a:1")])
def test_other_errors_ask_for_nothing(resolve: Any, error: Exception) -> None:
    assert resolve("--broker=owl", "--broker_address=a:1").advice(error) == ""


def test_a_backend_without_credentials_has_none_to_look_at(resolve: Any) -> None:
    assert resolve("--broker_address=a:1").advice(BackendRefused("no", "a:1")) == ""
