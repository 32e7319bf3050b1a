"""What the harness promises of its figures. Nothing here depends on how fast the machine is."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

import load
import report
from cells import CellFailedError, run_cell
from changes import changes
from costs import Sides
from figures import REFERENCE, Rounds, rate
from load import Measured, WrongReplyError, by_tasks
from measures import MEASURES, reached
from rows import Figure, Row, Run, Stored, read, write
from scenarios import SCENARIOS


class Greeter:
    """A client without a server; from some call on it answers wrongly."""

    def __init__(self, right: int = 1 << 60) -> None:
        self._right = right

    def _fails(self) -> bool:
        self._right -= 1
        return self._right < 0

    async def hello(self, name: str) -> str:
        return "Hello World" if self._fails() else f"Hello {name}"

    async def echo(self, data: bytes) -> bytes:
        return b"" if self._fails() else data

    async def stream(self, names: AsyncIterator[str]) -> AsyncIterator[str]:
        async for name in names:
            yield await self.hello(name)

    async def compute(self, number: int) -> tuple[int, int]:
        return (-1 if self._fails() else number), number % 2


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WARM_UP", 0.001)


SHAPES = pytest.mark.parametrize("scenario", ["hello_c64", "echo_1k_c64", "stream_w64", "compute_2_workers"])


@SHAPES
async def test_calls_are_counted(scenario: str) -> None:
    measured = await by_tasks(Greeter(), SCENARIOS[scenario], 0.01, Sides(os.getpid()))
    assert measured.calls > 0
    assert 0 < measured.p50 <= measured.p99
    assert measured.server_cpu == measured.broker_cpu == 0 < measured.client_cpu
    assert measured.processes == (2 if scenario == "compute_2_workers" else None)


@SHAPES
async def test_a_wrong_reply_fails_the_cell(scenario: str) -> None:
    with pytest.raises(WrongReplyError):
        await by_tasks(Greeter(right=100), SCENARIOS[scenario], 10.0, Sides(os.getpid()))


async def test_a_reply_to_another_call_is_wrong() -> None:
    class Late(Greeter):
        before = "nobody"

        async def hello(self, name: str) -> str:
            answer, self.before = self.before, name
            return f"Hello {answer}"

    with pytest.raises(WrongReplyError):
        await by_tasks(Late(), SCENARIOS["hello_c1"], 10.0, Sides(os.getpid()))


def row(number: int, peer: str, rate: float, *, scenario: str = "hello_c64", foreign: float = 0.0) -> Row:
    measured = Measured(
        calls=1000,
        rate=rate,
        p50=1 / rate,
        p99=2 / rate,
        client_cpu=0.5 / rate,
        server_cpu=0.5 / rate,
        broker_cpu=0.0,
        instructions=None,
        foreign=foreign,
    )
    return Row(round=number, peer=peer, scenario=scenario, measured=measured)


def test_peers_are_compared_round_by_round() -> None:
    rows = [row(0, REFERENCE, 10), row(0, "other", 20), row(1, REFERENCE, 100), row(1, "other", 300)]
    assert Rounds(rows).ratios("hello_c64", "other", rate) == [2, 3]


def test_disturbed_rounds_do_not_count_while_three_are_left() -> None:
    rows = [row(number, REFERENCE, number + 1, foreign=number * 0.1) for number in range(4)]
    assert Rounds(rows).values("hello_c64", REFERENCE, rate) == [1, 2, 3, 4]
    rows.append(row(4, REFERENCE, 5))
    assert Rounds(rows).values("hello_c64", REFERENCE, rate) == [1, 2, 5]


def test_what_differs_by_less_than_the_noise_did_not_change() -> None:
    def run(*rates: float) -> Rounds:
        return Rounds(
            line for number, rate in enumerate(rates) for line in (row(number, REFERENCE, 1), row(number, "one", rate))
        )

    before = run(10, 11, 12, 13, 14)
    assert [line for line in changes(before, run(9, 10, 12, 12, 13)) if "one" in line and "chance" not in line] == []
    lines = list(changes(before, run(15, 16, 17, 18, 19)))
    assert f"hello_c64 one: rate to {REFERENCE} +42%: was 12, is 17" in lines
    assert lines[-1] == "4 of 8 figures; chance alone would name 0.063"


@pytest.mark.parametrize(
    ("value", "verdict"), [(1 / 8, "goal"), (1 / 7, "goal"), (0.2, "must"), (0.25, "must"), (0.26, "**no**")]
)
def test_less_is_better_for_latency(value: float, verdict: str) -> None:
    latency = next(measure for measure in MEASURES if "p50" in measure.says)
    assert reached(latency, value) == verdict


def test_a_stored_run_says_the_same_in_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(began="today", machine="a machine", python="3.11", loop="uvloop", pinned=True, versions={"grpcio": "1"})
    rows = [row(0, REFERENCE, 1000), row(0, "pymicro_http", 7000)]
    figures = [Figure(round=0, peer=REFERENCE, name="rss", value=float(1 << 25))]
    write(tmp_path / "calls.jsonl", run, rows)
    write(tmp_path / "footprint.jsonl", run, figures)
    stored = read([tmp_path / "calls.jsonl", tmp_path / "footprint.jsonl"])
    assert stored == Stored([run, run], rows, figures)

    page = tmp_path / "page.md"
    page.write_text("above\n\n<!-- figures -->\nold\n<!-- end of figures -->\n\nbelow\n")
    files = [str(tmp_path / "calls.jsonl"), str(tmp_path / "footprint.jsonl")]
    monkeypatch.setattr(sys, "argv", ["report.py", *files, "--into", str(page)])
    for _ in range(2):
        report.main()
    text = page.read_text()
    assert text.startswith("above\n\n<!-- figures -->\n\n* ")
    assert text.endswith("\n\n<!-- end of figures -->\n\nbelow\n")
    assert "old" not in text
    assert "| HTTP unary, 64 in flight, calls/s, to grpc.aio | 6x | 10x | 7x (7-7) | must |" in text
    assert "| idle service, RSS MiB | 32 (32-32) |" in text


async def test_a_cell_is_measured_in_processes_of_its_own() -> None:
    greeting = SCENARIOS["hello_c1"]
    measured = await run_cell("pymicro_memory", greeting, 0.01, uvloop=False)
    assert measured.calls > 0
    with pytest.raises(CellFailedError, match="the client failed"):
        await run_cell("pymicro_memory", msgspec.structs.replace(greeting, name="unknown"), 0.01, uvloop=False)
