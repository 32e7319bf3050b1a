"""Tasks that outlive their caller, and errors that are kept."""

from __future__ import annotations

import asyncio
import contextvars

from pymicro.plugins.toolkit import detached, end_task, start_task

CALLER = contextvars.ContextVar("CALLER", default="nobody")


async def test_a_task_gets_nothing_of_its_callers_context() -> None:
    async def who() -> str:
        return CALLER.get()

    CALLER.set("me")
    task = start_task(who(), "who")
    assert task.get_name() == "who"
    assert await task == "nobody"


async def test_an_ended_task_is_over_when_the_wait_is() -> None:
    over = False

    async def work() -> None:
        nonlocal over
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            over = True

    task = start_task(work(), "work")
    await asyncio.sleep(0)
    await end_task(task)
    assert (over, task.cancelled()) == (True, True)
    await end_task(task)
    await end_task(None)


async def test_the_error_of_an_ended_task_is_not_raised() -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("while it ended")

    task = start_task(work(), "work")
    await asyncio.sleep(0)
    await end_task(task)
    assert isinstance(task.exception(), OSError)


def test_a_detached_error_and_its_causes_hold_no_frames() -> None:
    try:
        try:
            try:
                raise OSError("first")
            except OSError:
                raise ValueError("context")  # noqa: B904  # the cause is left to the context
        except ValueError as cause:
            raise RuntimeError("last") from cause
    except RuntimeError as caught:
        error = detached(caught)
    cause = error.__cause__
    assert isinstance(cause, ValueError)
    assert isinstance(cause.__context__, OSError)
    assert [each.__traceback__ for each in (error, cause, cause.__context__)] == [None] * 3
