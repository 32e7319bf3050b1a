"""`--help`, and the page that is made from the same descriptions."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from pymicro.plugins.toolkit import option
from pymicro.settings import HelpRequested, option_tables, reference_page


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, option("Where the service runs.")]
    token: Annotated[str, option("What it shows at the door.", secret=True, env="TOKEN")] = "geheim"
    batch: Annotated[int, option("How much at a time.", unit="messages")] = 5


@pytest.fixture
def text(resolve: Any) -> str:
    with pytest.raises(HelpRequested) as caught:
        resolve("--broker=memory", "--unknown", "--help", flags=Flags)
    return caught.value.text


def test_it_fits_a_hundred_columns(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "entry",
    [
        "--registry=<name>\n        Where services register and are found. auto is mdns if installed, else memory. "
        "Default auto.\n        $MICRO_REGISTRY\n",
        "--server_metadata=<key=value>\n        Facts about the node, as key=value; repeatable. "
        "$MICRO_SERVER_METADATA\n",
        "--client_request_timeout=<duration>\n        Time for a whole call, with all its attempts. Default 30s. "
        "$MICRO_CLIENT_REQUEST_TIMEOUT\n",
        "--max_message_size=<size>\n        Largest body of one message. Default 4MiB. $MICRO_MAX_MESSAGE_SIZE\n",
        "--tls_secure\n        Whether clients use TLS though no certificate is given. Default false. "
        "$MICRO_TLS_SECURE\n",
        "--region=<text>\n        Where the service runs. Required.\n",
        "--token=<text>\n        What it shows at the door. Default ***. $TOKEN\n",
        "--batch=<integer>\n        How much at a time. In messages. Default 5.\n",
        "broker: memory (flag --broker); there are ",
    ],
)
def test_each_flag_has_its_entry(text: str, entry: str) -> None:
    assert entry in text


def test_options_of_chosen_plugins_only(text: str) -> None:
    assert "--broker_memory_max_messages=<integer>" in text
    assert "--registry_mdns_" not in text


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["--client_retries=1", "-h"]])
def test_both_spellings_anywhere(resolve: Any, argv: list[str]) -> None:
    with pytest.raises(HelpRequested):
        resolve(*argv)


def test_not_behind_two_dashes(resolve: Any) -> None:
    assert resolve("--", "--help").arguments == ("--help",)


def test_the_page_has_the_options_of_the_core() -> None:
    page = reference_page()

    assert "| `--client_retries` | `MICRO_CLIENT_RETRIES` | integer | `5` | " in page
    levels = "trace\\|debug\\|info\\|warn\\|warning\\|error\\|fatal"
    assert f"| `--log_level` | `MICRO_LOG_LEVEL` | {levels} | `info` | " in page


def test_the_page_has_the_table_of_each_plugin_in_its_place() -> None:
    tables = option_tables()

    assert "broker.memory" in tables
    for name, table in tables.items():
        assert f"<!-- options of {name} -->\n{table}<!-- end of options -->\n" in reference_page()
