"""What is left behind is found, and said where it comes from."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from pymicro_testing import LeakError, no_leaks

has_descriptors = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open descriptors")


async def test_a_clean_block_passes() -> None:
    async with no_leaks():
        await asyncio.create_task(asyncio.sleep(0))
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        with socket.socket():
            pass


async def test_a_task_is_named_with_its_origin() -> None:
    with pytest.raises(LeakError) as failure:
        async with no_leaks(grace=0.01):
            task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    task.cancel()
    assert "task 'forgotten', waiting at" in str(failure.value)
    assert "test_leaks.py:" in str(failure.value)
    assert 'asyncio.create_task(asyncio.sleep(60), name="forgotten")' in str(failure.value)


async def test_a_thread_is_named_with_its_origin() -> None:
    end = threading.Event()
    with pytest.raises(LeakError) as failure:
        async with no_leaks(grace=0.01):
            threading.Thread(target=end.wait, name="worker").start()
    end.set()
    assert "thread 'worker', waiting at" in str(failure.value)
    assert 'name="worker").start()' in str(failure.value)


@has_descriptors
async def test_a_socket_is_named_with_its_addresses_and_origin() -> None:
    with pytest.raises(LeakError) as failure:
        async with no_leaks(grace=0.01):
            left = socket.create_server(("127.0.0.1", 0))
    port = left.getsockname()[1]
    left.close()
    assert f"laddr=('127.0.0.1', {port})" in str(failure.value)
    assert "socket.create_server" in str(failure.value)


@has_descriptors
async def test_an_open_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LeakError, match=r"descriptor \d+: .*left\.txt"):
        async with no_leaks(grace=0.01):
            left = (tmp_path / "left.txt").open("w")
    left.close()


async def test_what_was_there_before_does_not_count() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    with socket.socket():
        async with no_leaks(grace=0.0):
            pass
    task.cancel()


@has_descriptors
async def test_a_descriptor_that_another_took_over_counts() -> None:
    first = socket.socket()
    number = first.fileno()
    with pytest.raises(LeakError, match=f"descriptor {number}: socket"):
        async with no_leaks(grace=0.01):
            first = _replaced(first)
    assert first.fileno() == number
    first.close()


async def test_a_listener_that_was_opened_again_does_not_count() -> None:
    first = socket.create_server(("127.0.0.1", 0))
    address = first.getsockname()
    async with no_leaks(grace=0.01):
        first.close()
        second = socket.create_server(address)
    second.close()


async def test_what_is_closing_has_a_moment() -> None:
    async with no_leaks(grace=5.0):
        asyncio.get_running_loop().call_later(0.02, lambda: None)
        task = asyncio.create_task(asyncio.sleep(0.02))
    assert task.done()


async def test_threads_of_the_loops_own_executor_do_not_count() -> None:
    async with no_leaks(grace=0.01):
        await asyncio.to_thread(int)


async def test_the_blocks_own_error_comes_first() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def leaks_and_fails() -> None:
        async with no_leaks(grace=0.01):
            tasks.append(asyncio.create_task(asyncio.sleep(60)))
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await leaks_and_fails()
    tasks[0].cancel()


async def test_blocks_may_be_nested_and_leave_the_loop_as_it_was() -> None:
    loop = asyncio.get_running_loop()
    factory, start = loop.get_task_factory(), threading.Thread.start
    async with no_leaks(), no_leaks():
        await asyncio.create_task(asyncio.sleep(0))
    assert (loop.get_task_factory(), threading.Thread.start) == (factory, start)


async def test_closed_connections_are_no_leak() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with no_leaks():
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        await writer.wait_closed()
        server.close()


def _replaced(old: socket.socket) -> socket.socket:
    old.close()
    return socket.socket()
