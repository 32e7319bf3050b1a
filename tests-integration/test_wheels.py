"""The packages as users get them: built, installed in an environment without this repository, run and type-checked."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from pymicro_testing.servers import EtcdServer, KafkaServer, NatsServer

ROOT = Path(__file__).parent.parent

PLUGINS = """\
import pymicro_broker_http
import pymicro_broker_kafka
import pymicro_broker_nats
import pymicro_broker_rabbitmq
import pymicro_broker_redis
import pymicro_codec_protobuf
import pymicro_registry_consul
import pymicro_registry_etcd
import pymicro_registry_mdns
import pymicro_registry_nats
import pymicro_transport_http
import pymicro_transport_nats
import pymicro_transport_rabbitmq
"""

TYPED = """\
from collections.abc import AsyncIterator
from typing import Protocol

from greeter import Greeter, HelloRequest

from pymicro import Service


class Numbers(Protocol):
    def count(self, upto: int) -> AsyncIterator[int]: ...


client = Service("typed").client
greeter = client.stub("greeter", Greeter)
reveal_type(greeter.hello)
reveal_type(client.stub("numbers", Numbers).count(3))


async def main() -> None:
    reveal_type(await greeter.hello(HelloRequest(name="John")))
    await greeter.hello("John")  # the one mistake
"""

#: Everything is checked, but for imports that are there to enable what they import.
PYRIGHT = """{"typeCheckingMode": "strict", "reportUnusedImport": false}"""


def run(*command: str | Path, folder: Path, status: int = 0) -> str:
    """What a command writes, without the variables by which it could find the repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MICRO_"))}
    result = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def python(place: Path) -> Path:
    """The Python of an environment with the wheels of all packages. Only what they depend on comes from an index."""
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    for package in ROOT.glob("packages/*/pyproject.toml"):
        run(sys.executable, "-c", build, place / "wheels", folder=package.parent)
    venv.create(place / "clean", with_pip=True)
    python = place / "clean" / ("Scripts" if os.name == "nt" else "bin") / "python"
    wheels = sorted((place / "wheels").glob("*.whl"))
    run(python, "-m", "pip", "install", "-q", "--no-compile", *wheels, folder=place)
    return python


@pytest.mark.timeout(300)
async def test_the_wheels_serve_the_greeter_and_know_its_types(place: Path, python: Path, start: Any) -> None:
    program = place / "program"
    program.mkdir()
    example = ROOT / "examples" / "greeter"
    (program / "greeter.py").write_text("import plugins\n" + (example / "greeter.py").read_text())
    (program / "client.py").write_text((example / "client.py").read_text())
    (program / "plugins.py").write_text(PLUGINS)
    (program / "typed.py").write_text(TYPED)
    (program / "pyrightconfig.json").write_text(PYRIGHT)

    where = run(python, "-c", "import pymicro; print(pymicro.__file__)", folder=program)
    assert Path(where.strip()).is_relative_to(place / "clean")
    flags = ("--registry=mdns", "--transport=http", "--drain_delay=0")
    server = await start(program / "greeter.py", *flags, python=python)
    await server.says("service started")
    client = await start(program / "client.py", *flags, python=python)
    assert await client.ended() == 0
    assert client.printed == ["Hello John"]

    mypy = run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, ".", folder=program, status=1)
    assert '"def (request: greeter.HelloRequest) -> typing.Coroutine[Any, Any, greeter.HelloResponse]"' in mypy
    assert '"typing.AsyncIterator[int]"' in mypy
    assert '"greeter.HelloResponse"' in mypy
    assert 'Argument 1 to "hello" of "Greeter" has incompatible type "str"; expected "HelloRequest"' in mypy
    assert mypy.count(": error:") == 1

    pyright = run(sys.executable, "-m", "pyright", "--pythonpath", python, ".", folder=program, status=1)
    assert '"(request: HelloRequest) -> CoroutineType[Any, Any, HelloResponse]"' in pyright
    assert '"AsyncIterator[int]"' in pyright
    assert '"HelloResponse"' in pyright
    assert '"Literal[\'John\']" cannot be assigned to parameter "request" of type "HelloRequest"' in pyright
    assert pyright.count(" - error:") == 1


@pytest.mark.timeout(300)
async def test_the_wheels_serve_on_backends_chosen_by_flag(
    place: Path,
    python: Path,
    start: Any,
    etcd_server: EtcdServer,
    nats_server: NatsServer,
    kafka_server: KafkaServer,
) -> None:
    program = place / "backends"
    program.mkdir()
    (program / "plugins.py").write_text(PLUGINS)
    for name, source in (("greeter.py", "matrix_node.py"), ("caller.py", "matrix_caller.py")):
        text = (ROOT / "tests-integration" / "programs" / source).read_text()
        (program / name).write_text(text.replace("import os", "import os\n\nimport plugins", 1))

    flags = ("--registry=etcd", "--transport=nats", "--broker=kafka")
    addresses = {
        "MICRO_REGISTRY_ADDRESS": etcd_server.address,
        "MICRO_TRANSPORT_ADDRESS": nats_server.address,
        "MICRO_BROKER_ADDRESS": kafka_server.address,
    }
    greeter = await start(program / "greeter.py", *flags, python=python, **addresses)
    await greeter.says("service started")
    caller = await start(program / "caller.py", *flags, python=python, **addresses)
    assert await caller.ended() == 0, "\n".join(caller.log)
    assert caller.printed == ["Hello John", "counted 4950", "heard 10"]
