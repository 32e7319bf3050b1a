"""Which implementation of each kind, under which name, talking to what."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
import pytest

from pymicro.broker import MemoryBroker
from pymicro.errors import ConfigurationError, InvalidOption, UnknownPlugin
from pymicro.plugins import Plugin, enable, hookimpl
from pymicro.plugins._host import HOST, Host
from pymicro.plugins.toolkit import option


class PigeonOptions(msgspec.Struct, frozen=True, kw_only=True):
    flock: Annotated[int, option("How many fly.", ge=1)] = 3
    words: Annotated[tuple[str, ...], option("What they know.")] = ()


class Pigeon:
    """Stands for a component."""


@pytest.fixture(autouse=True)
def pigeon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enable a broker called pigeon, for one test."""
    for name, value in vars(Host()).items():
        monkeypatch.setattr(HOST, name, value)
    module = ModuleType("pigeons")
    plugin = Plugin(kind="broker", name="pigeon", api=(1, 0), target="pigeons:Pigeon", options=PigeonOptions)
    module.pymicro_plugins = hookimpl(lambda: [plugin])  # type: ignore[attr-defined]
    module.Pigeon = Pigeon  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pigeons", module)
    enable(module)


def test_a_plugin_by_name_with_its_options(resolve: Any) -> None:
    settings = resolve("--broker=pigeon", "--broker_pigeon_flock=9", environ={"MICRO_BROKER_PIGEON_WORDS": "a,b"})

    choice = settings.choices["broker", ""]
    assert choice.plugin.name == "pigeon"
    assert choice.options == PigeonOptions(flock=9, words=("a", "b"))
    assert "broker_pigeon_flock=9 (flag --broker_pigeon_flock)" in settings.provenance()


def test_repeated_flags_add_to_a_list(resolve: Any) -> None:
    settings = resolve("--broker=pigeon", "--broker_pigeon_words=a", "--broker_pigeon_words=b,c")

    assert settings.choices["broker", ""].options.words == ("a", "b", "c")


def test_auto_by_name_means_the_default(resolve: Any) -> None:
    choice = resolve("--broker=auto", broker="pigeon").choices["broker", ""]

    assert choice.plugin.name != "pigeon"
    assert choice.source.startswith("flag --broker: ")


def test_a_default_that_is_installed_and_broken(resolve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "birds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: birds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pymicro.plugins]\nbroker.http = is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigurationError, match=r"birds 1\.0.*taken by default.*to do without it: --broker=memory"):
        resolve(broker="auto")
    assert resolve().choices["broker", ""].plugin.name == "memory"


@pytest.mark.parametrize("given", [MemoryBroker(), lambda build: MemoryBroker()])
def test_a_component_or_a_factory(resolve: Any, given: Any) -> None:
    settings = resolve(broker=given, broker_address="a:1")
    choice = settings.choices["broker", ""]

    assert choice.given is given
    assert choice.plugin is None
    assert choice.addresses == ("a:1",)


def test_a_component_is_named_in_the_provenance(resolve: Any) -> None:
    assert "broker=MemoryBroker (keyword broker)" in resolve(broker=MemoryBroker()).provenance()


def test_a_flag_replaces_a_component(resolve: Any) -> None:
    choice = resolve("--broker=pigeon", broker=MemoryBroker()).choices["broker", ""]

    assert choice.given is None
    assert choice.plugin.name == "pigeon"


@pytest.mark.parametrize(
    ("argv", "environ", "keywords"),
    [
        (["--broker=memory", "--broker=alerts:pigeon"], {}, {}),
        (["--broker=memory,alerts:pigeon"], {}, {}),
        ([], {"MICRO_BROKER": "alerts:pigeon"}, {}),
        ([], {}, {"brokers": {"alerts": "pigeon"}}),
        (["--broker=alerts:pigeon"], {}, {"brokers": {"alerts": MemoryBroker()}}),
    ],
)
def test_named_instances(resolve: Any, argv: list[str], environ: dict[str, str], keywords: dict[str, Any]) -> None:
    settings = resolve(*argv, environ=environ, **keywords)

    assert settings.choices["broker", ""].plugin.name == "memory"
    assert settings.choices["broker", "alerts"].plugin.name == "pigeon"
    assert any(text.startswith("broker.alerts=pigeon (") for text in settings.provenance())


def test_addresses_of_instances(resolve: Any) -> None:
    argv = ["--broker=alerts:pigeon", "--broker_address=a:1,b:2", "--broker_address=alerts=c:3"]
    settings = resolve(*argv, environ={"MICRO_BROKER_ADDRESS": "alerts=d:4"})

    assert settings.choices["broker", ""].addresses == ("a:1", "b:2")
    assert settings.choices["broker", "alerts"].addresses == ("c:3",)


def test_a_weaker_source_counts_for_the_instances_that_a_stronger_one_leaves_out(resolve: Any) -> None:
    keywords: dict[str, Any] = {"brokers": {"alerts": "pigeon"}, "broker_address": {"": "a:1", "alerts": ["b:2"]}}
    settings = resolve(environ={"MICRO_BROKER_ADDRESS": "alerts=c:3"}, **keywords)

    assert settings.choices["broker", ""].addresses == ("a:1",)
    assert settings.choices["broker", "alerts"].addresses == ("c:3",)


def test_keywords_of_a_plugin_that_the_operator_replaced_do_no_harm(resolve: Any) -> None:
    settings = resolve("--broker=memory", broker="pigeon", broker_pigeon_flock=9)

    assert settings.choices["broker", ""].plugin.name == "memory"


def test_codecs_are_all_that_are_there(resolve: Any) -> None:
    codecs = {choice.name: choice for choice in resolve().codecs}

    assert {"json", "bytes", "text"} <= set(codecs)
    assert codecs["json"].optional is False
    assert codecs["json"].options is not None


@pytest.mark.parametrize(
    ("argv", "keywords", "text"),
    [
        (["--broker=pidgeon"], {}, r"no broker plugin 'pidgeon' \(flag --broker\). Did you mean 'pigeon'"),
        (["--broker=alerts:pidgeon"], {}, r"no broker plugin 'pidgeon' \(flag --broker\)"),
        ([], {"broker": "pidgeon"}, r"\(keyword broker\)"),
        ([], {"brokers": {"alerts": "pidgeon"}}, r"\(keyword brokers\)"),
    ],
)
def test_unknown_plugins_are_errors_that_say_who_asked(
    resolve: Any, argv: list[str], keywords: dict[str, Any], text: str
) -> None:
    with pytest.raises(UnknownPlugin, match=text):
        resolve(*argv, **keywords)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"broker": 5}, "keyword broker: expected the name of a broker plugin, a component or a factory, not 5"),
        ({"broker": MemoryBroker}, "keyword broker: MemoryBroker is a class: give an instance"),
        ({"brokers": "pigeon"}, "keyword brokers: expected a dict"),
        ({"brokers": {"Alerts": "pigeon"}}, "the name 'Alerts' of a broker may have a-z"),
        ({"broker_address": 5}, "keyword broker_address: expected a comma-separated list; 5 does not fit"),
        ({"broker_address": {"alerts": "a:1"}}, "keyword broker_address: there is no instance 'alerts'"),
        ({"broker_kafka_acks": "all"}, "unknown keyword broker_kafka_acks. It is an option of the broker plugin 'kaf"),
    ],
)
def test_choices_that_make_no_sense(resolve: Any, keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        resolve(**keywords)
