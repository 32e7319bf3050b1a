"""A program that a backend does not let in ends, and says in one line which backend that is and where to look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pymicro_testing.servers import NativeServer

WRONG = "wr0ng-s3cret"

#: Each backend of each kind, and what it calls the secret.
BACKENDS = [
    ("registry", "etcd", "password"),
    ("registry", "consul", "token"),
    ("registry", "nats", "password"),
    ("transport", "nats", "password"),
    ("transport", "rabbitmq", "password"),
    ("broker", "nats", "password"),
    ("broker", "rabbitmq", "password"),
    ("broker", "redis", "password"),
    ("broker", "kafka", "password"),
]


@pytest.mark.parametrize(("kind", "name", "secret"), BACKENDS, ids=["-".join(row[:2]) for row in BACKENDS])
async def test_one_line_says_whom_to_ask_for_what(
    kind: str, name: str, secret: str, server: Callable[..., NativeServer], start: Any
) -> None:
    backend = server(name, credentials=True)
    user = [f"--{kind}_{name}_username={backend.username}"] if secret == "password" else []
    others = [f"--{other}=memory" for other in ("registry", "transport", "broker") if other != kind]
    node = await start(
        "matrix_node.py",
        *others,
        f"--{kind}={name}",
        f"--{kind}_address={backend.address}",
        *user,
        f"--{kind}_{name}_{secret}={WRONG}",
    )
    status = await node.ended()
    assert status in (1, 2), "\n".join(node.log)
    (error,) = [line for line in node.log if line.startswith("error: ")]
    assert f"({kind} {name}: see " in error
    assert f"--{kind}_{name}_{secret}" in error
    assert not [line for line in node.log if WRONG in line or backend.password in line or "Traceback" in line]
    assert node.log[-1] == error
