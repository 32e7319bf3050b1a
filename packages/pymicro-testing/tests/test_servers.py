"""The servers do what their methods say, and none outlives its session."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pymicro_testing import Outage, no_leaks
from pymicro_testing.servers import SERVERS, ConsulServer, NativeServer, RedisServer, ServerFailedError

Ask = Callable[..., NativeServer]


def http(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """An HTTP request after which the server hangs up."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.0", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def jetstream(request: str, body: str = "") -> bytes:
    """A request to JetStream, the answer of which goes to this very connection."""
    return f"CONNECT {{}}\r\nSUB inbox 1\r\nPUB $JS.API.STREAM.{request}.S inbox {len(body)}\r\n{body}\r\n".encode()


def amqp(user: str, password: str, *, passive: bool = False) -> bytes:
    """A whole conversation with RabbitMQ, up to the declaration of a durable queue, without waiting for answers."""

    def frame(channel: int, method: bytes) -> bytes:
        return struct.pack(">BHI", 1, channel, len(method)) + method + b"\xce"

    def short(text: str) -> bytes:
        return bytes([len(text)]) + text.encode()

    secret = f"\0{user}\0{password}".encode()
    start_ok = (
        b"\x00\x0a\x00\x0b" + bytes(4) + short("PLAIN") + struct.pack(">I", len(secret)) + secret + short("en_US")
    )
    tune_ok = b"\x00\x0a\x00\x1f" + struct.pack(">HIH", 2047, 131072, 60)
    declare = b"\x00\x32\x00\x0a" + bytes(2) + short("q") + bytes([0b01 if passive else 0b10]) + bytes(4)
    return b"".join(
        [
            b"AMQP\x00\x00\x09\x01",
            frame(0, start_ok),
            frame(0, tune_ok),
            frame(0, b"\x00\x0a\x00\x28" + short("/") + b"\x00\x00"),
            frame(1, b"\x00\x14\x00\x0a\x00"),
            frame(1, declare),
        ]
    )


def kafka(key: int, version: int, body: bytes) -> bytes:
    """A request to Kafka; its number is the key."""
    head = struct.pack(">hhi", key, version, key) + text("test")
    return struct.pack(">i", len(head) + len(body)) + head + body


def text(value: str) -> bytes:
    """A string as Kafka writes it."""
    return struct.pack(">h", len(value)) + value.encode()


def topic(*, try_only: bool) -> bytes:
    """Asks Kafka to make a topic, or whether it could."""
    one = struct.pack(">i", 1) + text("t") + struct.pack(">ihii", 1, 1, 0, 0)
    return kafka(19, 2, one + struct.pack(">i?", 5000, try_only))


def sasl(user: str, password: str) -> bytes:
    """Asks Kafka to let a user in."""
    secret = f"\0{user}\0{password}".encode()
    return kafka(17, 1, text("PLAIN")) + kafka(36, 0, struct.pack(">i", len(secret)) + secret)


#: By server: what stores something durably, what asks for it, and what says in both answers that it is there.
DATA = {
    "consul": (http("PUT", "/v1/kv/k", "v"), b"true", http("GET", "/v1/kv/k"), b"200 OK"),
    "etcd": (
        http("POST", "/v3/kv/put", {"key": "aw==", "value": "dg=="}),
        b"200 OK",
        http("POST", "/v3/kv/range", {"key": "aw=="}),
        b'"value":"dg=="',
    ),
    "kafka": (
        topic(try_only=False),
        rb"\x00\x00\x00\x13\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x00",
        topic(try_only=True),
        rb"\x00\x01t\x00\x24",  # error 36: there is such a topic
    ),
    "nats": (
        jetstream("CREATE", '{"name":"S","subjects":["s"],"storage":"file"}'),
        b'"did_create":true',
        jetstream("INFO"),
        b'"config"',
    ),
    "rabbitmq": (
        amqp("guest", "guest"),
        rb"\x00\x32\x00\x0b\x01q",
        amqp("guest", "guest", passive=True),
        rb"\x00\x32\x00\x0b\x01q",
    ),
    "redis": (b"SET k v\r\n", rb"\+OK", b"GET k\r\n", rb"\$1\r\nv"),
}

#: By server: what a client says to be let in, and what the server says if it is.
LOGIN: dict[str, tuple[Callable[[str, str], bytes], bytes]] = {
    "consul": (lambda user, password: http("GET", "/v1/kv/?keys", X_Consul_Token=password), b"404 Not Found|200 OK"),
    "etcd": (
        lambda user, password: http("POST", "/v3/auth/authenticate", {"name": user, "password": password}),
        b'"token"',
    ),
    "kafka": (sasl, rb"\x00\x00\x00\x24\x00\x00"),
    "nats": (
        lambda user, password: f"CONNECT {json.dumps({'user': user, 'pass': password})}\r\nPING\r\n".encode(),
        b"PONG",
    ),
    "rabbitmq": (amqp, rb"\x00\x32\x00\x0b\x01q"),
    "redis": (lambda user, password: f'AUTH {user} "{password}"\r\n'.encode(), rb"\+OK"),
}


def test_every_server_is_tried() -> None:
    assert set(DATA) == set(LOGIN) == set(SERVERS)


@pytest.mark.timeout(240)  # four starts of a server, on a machine that may be busy
@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_lives_through_its_outages(server: Ask, name: str) -> None:
    running = server(name)
    assert running.outages == set(Outage)
    write, written, read, there = DATA[name]

    async def stored(timeout: float = 10.0) -> bool:
        return await running.asked(read, re.compile(there), timeout=timeout)

    async with no_leaks():
        assert not await stored(1.0)
        assert await running.asked(write, re.compile(written), timeout=10.0)
        await running.pause()
        assert not await running.asked(running.question, running.answer)
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)  # accepted nevertheless
        writer.close()
        await running.resume()
        assert await stored()
        address = running.address
        await running.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
        await running.stop()
        await running.start()
        assert (await stored(), running.address) == (True, address)
        await running.forget()
        assert (await stored(1.0), running.address) == (False, address)


@pytest.mark.timeout(240)  # four starts of a server, on a machine that may be busy
@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_lets_in_whom_it_knows(server: Ask, name: str) -> None:
    running = server(name, tls=True, credentials=True)
    login, welcome = LOGIN[name]
    own = running.tls_context()
    stranger = ssl.create_default_context(cafile=running.certificates.authority) if running.certificates else None

    async def admitted(password: str, context: ssl.SSLContext | None, timeout: float) -> bool:
        question = login(running.username, password)
        try:
            async with asyncio.timeout(timeout):
                return await ask_over(running, question, re.compile(welcome), context)
        except (OSError, TimeoutError):
            return False

    assert await admitted(running.password, own, 10.0)
    assert not await admitted("guessed", own, 1.0)
    assert not await admitted(running.password, stranger, 1.0)


async def ask_over(
    running: NativeServer, question: bytes, answer: re.Pattern[bytes], context: ssl.SSLContext | None
) -> bool:
    """Like `asked`, with TLS of one's own."""
    host = "127.0.0.1"
    reader, writer = await asyncio.open_connection(host, running.port, ssl=context if running.greets_in_tls else None)
    try:
        if not running.greets_in_tls:
            await reader.readline()
            assert context is not None
            await writer.start_tls(context, server_hostname=host)
        writer.write(question)
        said = b""
        while not answer.search(said):
            if not (more := await reader.read(4096)):
                return False
            said += more
        return True
    finally:
        writer.transport.abort()


def test_equal_requests_share_a_server(server: Ask) -> None:
    one = server("redis")
    assert server("redis") is one
    assert server("redis", settings={}) is one
    others = [server("redis", number=2), server("redis", credentials=True), server("redis", settings={"hz": "20"})]
    assert len({id(each) for each in (one, *others)}) == 4
    assert len({each.address for each in (one, *others)}) == 4


async def test_a_server_that_was_left_down_is_brought_back(server: Ask) -> None:
    await server("redis").terminate()
    assert not server("nats").folder.samefile(server("redis").folder)
    assert await server("redis").asked(RedisServer.question, RedisServer.answer)
    await server("redis").pause()
    assert await server("redis").asked(RedisServer.question, RedisServer.answer)


async def test_settings_are_obeyed(server: Ask) -> None:
    running = server("redis", settings={"maxmemory": "3mb"})
    assert await running.asked(b"CONFIG GET maxmemory\r\n", re.compile(rb"3145728"))


async def test_a_server_that_cannot_start_says_why() -> None:
    failing = RedisServer(settings={"nonsense": "1"})
    try:
        with pytest.raises(ServerFailedError, match=r"ended instead of starting(.|\n)*nonsense"):
            await failing.start()
        with pytest.raises(ServerFailedError, match="does not run"):
            await failing.pause()
    finally:
        await failing.close()
    assert not failing.folder.exists()


MISSING = """
def test_it(redis_server):
    pass
"""


@pytest.mark.parametrize(("ci", "outcome"), [("", {"skipped": 1}), ("1", {"errors": 1})])
def test_a_missing_server_is_a_skip_and_in_ci_a_failure(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setenv("PATH", str(pytester.path))
    monkeypatch.setenv("CI", ci)
    pytester.makepyfile(MISSING)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(["*redis: no redis-server*apt-get install redis-server*"])


def test_a_user_may_have_a_fixture_of_the_same_name(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef server():\n    return 'mine'")
    pytester.makepyfile("def test_it(server, redis_server):\n    assert server == 'mine' and redis_server.running")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


SMALL_AND_LARGE = """
import socket

def test_first(consul_server, redis_server):
    with open("ports", "w") as file:
        file.write(f"{consul_server.port} {redis_server.port}")

def test_second(consul_server, redis_server):
    with open("ports") as file:
        assert file.read() == f"{consul_server.port} {redis_server.port}"
"""
ELSEWHERE = """
import socket

def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

def test_third():
    with open("ports") as file:
        consul, redis = map(int, file.read().split())
    assert (answers(consul), answers(redis)) == (False, True)

def test_fourth(consul_server):
    assert answers(consul_server.port)
"""


def test_a_large_server_ends_with_the_tests_of_its_folder(
    consul_server: ConsulServer, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(consul_server.program).parent.parent))  # pytester has another home
    for folder, text in (("one", SMALL_AND_LARGE), ("two", ELSEWHERE)):
        pytester.mkdir(folder).joinpath(f"test_{folder}.py").write_text(text)
    pytester.runpytest_subprocess().assert_outcomes(passed=4)


LEFT = """
import os, signal

def test_it(server):
    running = [server(name) for name in NAMES]
    with open("left", "w") as file:
        file.writelines(f"{each.port} {each.folder}\\n" for each in running)
    END
"""


@pytest.mark.parametrize(
    ("end", "names"),
    [
        ("assert False", ("redis",)),
        ("os.kill(os.getpid(), signal.SIGINT)", ("redis",)),
        ("os.kill(os.getpid(), signal.SIGKILL)", ("redis", "nats", "etcd")),
        ("os.setsid(); os.killpg(0, signal.SIGKILL)", ("redis", "rabbitmq")),
    ],
)
def test_no_server_outlives_its_session(pytester: pytest.Pytester, end: str, names: tuple[str, ...]) -> None:
    pytester.makepyfile(LEFT.replace("END", end).replace("NAMES", repr(names)))
    pytester.runpytest_subprocess()
    left = [line.split() for line in (pytester.path / "left").read_text().splitlines()]
    assert len(left) == len(names)
    for port, folder in left:
        until_gone(int(port), Path(folder))


STARTING = """
import os, signal, subprocess

class Popen(subprocess.Popen):
    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        if "cwd" in how:  # a server, and nobody was told of it yet
            with open("left", "w") as file:
                file.write(f"{self.pid} {how['cwd']}")
            os.kill(os.getpid(), signal.SIGKILL)

def test_it(monkeypatch, server):
    monkeypatch.setattr(subprocess, "Popen", Popen)
    server("NAME")
"""


@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
def test_no_server_outlives_a_session_that_ends_while_it_starts(pytester: pytest.Pytester, name: str) -> None:
    pytester.makepyfile(STARTING.replace("NAME", name))
    pytester.runpytest_subprocess()
    group, folder = (pytester.path / "left").read_text().split()
    until(lambda: not alive(int(group)) and not Path(folder).exists())


def alive(group: int) -> bool:
    """Whether a process of this group is left. The dead ones, whose new parent may not care, do not count."""
    if not Path("/proc/self/stat").exists():
        return not subprocess.run(["pgrep", "-g", str(group)], capture_output=True, check=False).returncode
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def until_gone(port: int, folder: Path) -> None:
    """Wait until nobody listens and nothing is left."""
    until(lambda: not folder.exists() and not listening(port))


def until(gone: Callable[[], bool]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + 10.0
    while not gone():
        assert time.monotonic() < end, "something is left"
        time.sleep(0.01)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_started_by_hand_they_run_until_told_to_end(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "pymicro_testing.servers", "redis", "nats", "redis", "--tls", "--credentials"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(4)]
        process.send_signal(number)
        assert process.stdout.read() == ""
        assert process.wait(10) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert [line[0] for line in lines] == ["redis", "nats", "authority", "running"]
    assert lines[0][2:4] == ["user", "tester"]
    for line in lines[:2]:
        until_gone(int(line[1].rpartition(":")[2]), Path(lines[2][1]).parent)


def test_by_hand_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pymicro_testing.servers", "--install", "redis"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "apt-get install redis-server" in done.stderr


@pytest.fixture
def kafka_from(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Fetches Kafka into an empty cache, with a shell script for Maven."""

    def start(maven: str) -> subprocess.Popen[str]:
        for name, script in (("java", ""), ("mvn", maven)):
            program = tmp_path / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "pymicro_testing.servers", "--install", "kafka"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize(
    ("maven", "complaint"),
    [
        ("echo no route to host; exit 1", "network.*(.|\n)*no route to host"),
        ("mkdir jars; echo x >jars/kafka.jar", "known"),
    ],
)
def test_what_cannot_be_fetched_or_is_something_else_is_said_and_not_kept(
    kafka_from: Callable[[str], subprocess.Popen[str]], tmp_path: Path, maven: str, complaint: str
) -> None:
    with kafka_from(maven) as process:
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert re.match(f"kafka: .*{complaint}", said)
    assert [path.name for path in (tmp_path / "pymicro-servers").iterdir()] == [".kafka-4.1.0.lock"]


def test_a_fetch_that_is_killed_leaves_nothing(
    kafka_from: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "group")
    with kafka_from(f"mkdir jars; echo $$ >{tmp_path}/group; sleep 60") as process:
        group = int((tmp_path / "group").read_text())
        process.kill()
    until(lambda: not alive(group) and not list((tmp_path / "pymicro-servers").glob(".kafka-*-*")))
