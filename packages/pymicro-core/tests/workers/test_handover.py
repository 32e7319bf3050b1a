"""What makes a process a worker is gone once it is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
import os
import pymicro
from pymicro.workers import handed_over
print(handed_over(), handed_over())
print("PYMICRO_WORKER" in os.environ)
"""


def run(environment: dict[str, str], *descriptors: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=os.environ | environment,
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_it_is_taken_once_and_told_to_no_program_that_the_worker_starts() -> None:
    read, write = os.pipe()
    try:
        told = {"slot": 2, "id": "x-5", "control": read, "sockets": [write], "address": "127.0.0.1:9"}
        taken, in_environment = run({"PYMICRO_WORKER": json.dumps(told)}, read, write)
    finally:
        os.close(read)
        os.close(write)
    assert taken.startswith("Handover(slot=2, id='x-5'")
    assert taken.endswith(" None")
    assert in_environment == "False"


def test_other_processes_have_none() -> None:
    assert run({}) == ["None None", "False"]
