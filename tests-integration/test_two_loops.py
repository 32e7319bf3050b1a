"""Services that share a process and nothing else."""

from __future__ import annotations

from typing import Any


async def test_two_services_in_two_loops_call_each_other(start: Any) -> None:
    program = await start("two_loops.py", MICRO_DRAIN_DELAY="0", MICRO_LOG_LEVEL="warn")
    assert await program.ended() == 0
    assert program.printed == ["2000 2000"]
    assert program.log == []
