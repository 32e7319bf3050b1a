"""What a program says at its start: what was chosen and why, its flags, and each mistake on one screen."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pymicro import Service

#: A terminal of the usual size.
SCREEN = 24, 80


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Puts a file beside those of the test."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def complaint(start: Any) -> Callable[..., Awaitable[str]]:
    """What a program writes that cannot start or fails: a message, on one screen, and a status that says so."""

    async def complaint(program: str | Path, *flags: str, **variables: str) -> str:
        running = await start(program, *flags, MICRO_LOG_LEVEL="warn", **variables)
        assert await running.ended() != 0
        text = "\n".join([*running.printed, *running.log])
        assert "Traceback" not in text
        lines, columns = SCREEN
        assert sum(-(-len(line) // columns) or 1 for line in text.splitlines()) <= lines
        return text

    return complaint


# what was chosen


async def test_the_log_says_what_was_chosen_and_why(start: Any) -> None:
    node = await start("node.py", "--registry=mdns", "--drain_delay=0", MICRO_TRANSPORT="http")
    line = await node.says("service started")
    assert "registry=mdns (flag --registry)" in line
    assert "transport=http (environment MICRO_TRANSPORT)" in line
    assert "broker=http (default: " in line
    assert "drain_delay=0s (flag --drain_delay)" in line
    assert "server_address=127.0.0.1:0 (environment MICRO_SERVER_ADDRESS)" in line


async def test_a_flag_wins_over_the_environment_which_wins_over_the_program(start: Any, write: Any) -> None:
    program = write(
        "program.py",
        "from pymicro import Service\n"
        "async def main(): pass\n"
        "Service('program', registry='memory', transport='memory', client_retries=1).run(main)\n",
    )
    line = await (await start(program, "--registry=mdns", MICRO_REGISTRY="none", MICRO_TRANSPORT="http")).says(
        "service started"
    )
    assert "registry=mdns (flag --registry)" in line
    assert "transport=http (environment MICRO_TRANSPORT)" in line
    assert "client_retries=1 (keyword client_retries)" in line


async def test_flags_may_be_written_with_dashes_and_apart_from_their_value(start: Any) -> None:
    node = await start("node.py", "--server-id", "seven", "--drain-delay", "0s")
    assert "server_id=seven" in await node.says("service started")


async def test_a_flag_gives_the_service_another_name(start: Any, caller: Service) -> None:
    node = await start("node.py", "--server_name=another")
    assert " service=another " in await node.says("service started")
    assert (await caller.client.call("another", "Debug.Health", {}))["status"] == "ok"


async def test_help_lists_the_flags_of_everything_chosen(start: Any) -> None:
    program = await start("node.py", "--help")
    assert await program.ended() == 0
    assert program.log == []
    text = "\n".join(program.printed)
    for flag in ("--registry", "--transport", "--server_address", "--registry_mdns_domain", "--transport_http_backlog"):
        assert f"  {flag}=" in text
    assert "registry: mdns (default: installed)" in text
    assert max(map(len, program.printed)) <= 100


# mistakes in flags and variables


async def test_an_unknown_plugin_names_the_near_one(complaint: Any) -> None:
    text = await complaint("node.py", "--registry=mnds")
    assert "There is no registry plugin 'mnds' (flag --registry)" in text
    assert "Did you mean 'mdns'?" in text


async def test_a_plugin_that_is_not_installed_names_the_command(complaint: Any) -> None:
    text = await complaint("node.py", MICRO_REGISTRY="zookeeper")
    assert "MICRO_REGISTRY" in text
    assert "pip install pymicro-registry-zookeeper" in text


async def test_an_unknown_flag_names_the_near_one(complaint: Any) -> None:
    text = await complaint("node.py", "--registery=mdns")
    assert "unknown flag --registery" in text
    assert "Did you mean --registry" in text


async def test_an_option_of_a_plugin_that_was_not_chosen_says_so(complaint: Any) -> None:
    text = await complaint("node.py", "--registry=memory", "--registry_mdns_domain=local")
    assert "unknown flag --registry_mdns_domain" in text
    assert "registry plugin 'mdns', which is not chosen" in text


async def test_a_malformed_value_names_flag_and_form(complaint: Any) -> None:
    text = await complaint("node.py", "--drain_delay=soon")
    assert "--drain_delay" in text
    assert "'soon'" in text


async def test_a_malformed_value_names_the_variable(complaint: Any) -> None:
    text = await complaint("node.py", MICRO_SERVER_MAX_REQUESTS="many")
    assert "MICRO_SERVER_MAX_REQUESTS" in text
    assert "'many'" in text


async def test_a_port_in_use_is_named(complaint: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = await complaint("node.py", f"--server_address=127.0.0.1:{port}")
    assert f"port {port} on 127.0.0.1 is in use" in text
    assert "--server_address" in text


async def test_an_address_without_a_port_says_how_to_write_it(complaint: Any) -> None:
    text = await complaint("node.py", "--server_address=localhost")
    assert "'localhost' has no port" in text


# mistakes in handlers

HANDLERS = """
from pymicro import Service
service = Service("service")

class Greeter:
    async def hello(self, request{annotation}) -> str:
        return "Hello"

service.handle(Greeter())
{more}
service.run()
"""


async def test_a_request_without_a_type_is_named(complaint: Any, write: Any) -> None:
    text = await complaint(write("program.py", HANDLERS.format(annotation="", more="")))
    assert "Greeter.hello: parameter 'request' has no annotation" in text


async def test_a_type_that_does_not_exist_is_named(complaint: Any, write: Any) -> None:
    text = await complaint(write("program.py", HANDLERS.format(annotation=": 'HelloRequest'", more="")))
    assert "Greeter.hello: the annotation of request cannot be resolved" in text
    assert "HelloRequest" in text


async def test_two_handlers_of_one_name_are_told(complaint: Any, write: Any) -> None:
    more = "service.handle(Greeter())"
    text = await complaint(write("program.py", HANDLERS.format(annotation=": str", more=more)))
    assert "two handlers are called 'Greeter'" in text
    assert "handle(..., name=...)" in text


# mistakes of plugins

HOOK = """
from pymicro.plugins import Plugin, hookimpl

@hookimpl
def pymicro_plugins():
    return [Plugin(kind="registry", name="strange", api={api}, target="strange_registry:Strange")]
"""


@pytest.fixture
def installed(write: Any) -> Callable[..., Path]:
    """A program, and a distribution beside it that offers a registry called `strange`."""

    def installed(hook: str, registry: str = "") -> Path:
        write("strange-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
        write("strange-1.0.dist-info/entry_points.txt", "[pymicro.plugins]\nregistry.strange = strange\n")
        write("strange.py", hook)
        write("strange_registry.py", registry)
        program: Path = write("program.py", HANDLERS.format(annotation=": str", more=""))
        return program

    return installed


async def test_a_plugin_whose_module_is_missing_something_is_named(complaint: Any, installed: Any) -> None:
    program = installed(HOOK.format(api=(1, 0)), registry="import a_driver_that_is_not_there")
    text = await complaint(program, "--registry=strange")
    assert "plugin registry.strange cannot be imported" in text
    assert "a_driver_that_is_not_there" in text


async def test_a_plugin_whose_hook_fails_is_named(complaint: Any, installed: Any) -> None:
    text = await complaint(installed("1 / 0"), "--registry=strange")
    assert "plugin registry.strange of strange 1.0 cannot be imported" in text
    assert "ZeroDivisionError" in text


async def test_a_plugin_for_another_version_of_the_api_is_refused(complaint: Any, installed: Any) -> None:
    text = await complaint(installed(HOOK.format(api=(2, 0))), "--registry=strange")
    assert "plugin registry.strange (strange) was written for version 2.0 of the plugin API" in text
    assert "1.0" in text


async def test_a_broken_plugin_that_nobody_chose_disturbs_nothing(start: Any, installed: Any) -> None:
    node = await start(installed("1 / 0"))
    await node.says("service started")


# mistakes in calls

CALLS = """
from pymicro import Service
service = Service("caller")

async def main() -> None:
    await service.client.call({arguments})

service.run(main)
"""


async def test_a_service_that_nobody_runs_is_named(complaint: Any, write: Any) -> None:
    text = await complaint(write("program.py", CALLS.format(arguments="'nobody', 'Greeter.Hello', {}")))
    assert "nobody has registered 'nobody' in the registry 'mdns'" in text


async def test_an_endpoint_that_is_missing_names_the_near_one(
    complaint: Any, start: Any, write: Any, name: str
) -> None:
    await (await start("node.py")).says("service started")
    text = await complaint(write("program.py", CALLS.format(arguments=f"'{name}', 'Node.Wrok', 1.0")))
    assert f"{name} has no endpoint Node.Wrok, did you mean Node.Work" in text


async def test_a_body_that_does_not_fit_names_what_is_wrong(complaint: Any, start: Any, write: Any, name: str) -> None:
    await (await start("node.py")).says("service started")
    text = await complaint(write("program.py", CALLS.format(arguments=f"'{name}', 'Node.Work', 'long'")))
    assert "400 Bad Request" in text
    assert "float" in text


async def test_a_node_that_cannot_be_reached_names_address_and_cause(complaint: Any, write: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = f"'greeter', 'Greeter.Hello', {{}}, address='{address}'"
    text = await complaint(write("program.py", CALLS.format(arguments=arguments)))
    assert f"{address}: connection refused" in text
