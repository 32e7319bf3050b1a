"""The rights that pages tell administrators to give are enough."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymicro import Service
from pymicro_testing.servers import NativeServer

HOW_TO = Path(__file__).parent / "how-to"
USER = {"username": "shop", "password": "secret"}
PATIENCE = 20.0

GetServer = Callable[..., NativeServer]


def commands(page: str, program: str) -> list[list[str]]:
    """The words of each command of a program on a page."""
    lines = (HOW_TO / page).read_text(encoding="utf-8").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{program} ")]


def login(plugin: str) -> dict[str, str]:
    """The user's options for a plugin, such as `registry_etcd`."""
    return {f"{plugin}_{name}": value for name, value in USER.items()}


def run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello {name}"


async def calls_work(**keywords: Any) -> None:
    """A service is found and called."""
    keywords = {"transport": "http", "server_address": "127.0.0.1:0", "broker": "memory", **keywords}
    greeter, caller = Service("greeter", environ={}, **keywords), Service("caller", environ={}, **keywords)
    greeter.handle(Greeter())
    async with asyncio.timeout(PATIENCE), greeter, caller:
        assert await caller.client.stub("greeter", Greeter).hello("John") == "Hello John"


async def events_work(**keywords: Any) -> None:
    """A queue gets what is published."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def hear(event: str) -> None:
        await heard.put(event)

    service = Service("shop", environ={}, registry="memory", transport="memory", **keywords)
    service.subscribe("orders", hear, queue="packing")
    async with asyncio.timeout(PATIENCE), service:
        await service.publish("orders", "apples")
        assert await heard.get() == "apples"


async def test_etcd(server: GetServer) -> None:
    etcd = server("etcd", credentials=True)
    root = ("etcdctl", f"--endpoints={etcd.address}", f"--user={etcd.username}:{etcd.password}")
    run(*root, "user", "add", ":".join(USER.values()))
    given = [words for words in commands("use-etcd.md", "etcdctl") if words[0] in {"role", "user"}]
    assert len(given) == 3
    for words in given:
        run(*root, *words)
    await calls_work(registry="etcd", registry_address=etcd.address, **login("registry_etcd"))


async def test_consul(server: GetServer) -> None:
    consul = server("consul", credentials=True)

    def put(path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://{consul.address}/v1/acl/{path}",
            data=json.dumps(body).encode(),
            method="PUT",
            headers={"X-Consul-Token": consul.password},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    rules = re.findall(r'^\w+ "\w*" \{ policy = "\w+" \}$', (HOW_TO / "use-consul.md").read_text("utf-8"), re.MULTILINE)
    put("policy", {"Name": "of-the-page", "Rules": "\n".join(rules)})
    token = put("token", {"Policies": [{"Name": "of-the-page"}]})["SecretID"]
    await calls_work(registry="consul", registry_address=consul.address, registry_consul_token=token)


async def test_nats(server: GetServer) -> None:
    found = re.search(r"^authorization: (\{.+?^\})$", (HOW_TO / "use-nats.md").read_text("utf-8"), re.M | re.S)
    assert found is not None
    address = server("nats", settings={"authorization": found[1]}).address
    for jetstream in (False, True):
        await events_work(
            broker="nats", broker_address=address, broker_nats_jetstream=jetstream, **login("broker_nats")
        )
    both = {"registry": "nats", "registry_address": address, "transport": "nats", "transport_address": address}
    await calls_work(**both, **login("registry_nats"), **login("transport_nats"))


async def test_redis(server: GetServer) -> None:
    redis = server("redis", settings={"appendfsync": "always"})
    (acl,) = (words for words in commands("use-redis.md", "redis-cli") if words[0] == "ACL")
    (removal,) = (words for words in commands("use-redis.md", "redis-cli") if words[0] == "XGROUP")
    cli = ("redis-cli", "-p", redis.address.rpartition(":")[2])
    assert run(*cli, *acl).strip() == "OK"
    await events_work(broker="redis", broker_address=redis.address, **login("broker_redis"))
    assert run(*cli, *removal).strip() == "1"
