"""What closing one of several listeners at one port does to the connections that wait in its queue."""

from __future__ import annotations

import socket
from contextlib import ExitStack

WAITING = 40


def test_closing_a_listener_resets_those_that_wait_for_it() -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(listener) for listener in listeners())
        address = first.getsockname()
        callers = [stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(WAITING)]
        first.close()
        assert 0 < sum(was_reset(caller) for caller in callers) < WAITING
        second.close()
        assert all(was_reset(caller) for caller in callers)


def test_with_a_second_hold_on_it_nobody_loses_anything() -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(listener) for listener in listeners())
        kept = stack.enter_context(first.dup())
        address = first.getsockname()
        callers = [stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(WAITING)]
        first.close()
        assert not any(was_reset(caller) for caller in callers)
        assert drained(kept) + drained(second) == WAITING


def listeners() -> list[socket.socket]:
    port, made = 0, []
    for _ in range(2):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(2 * WAITING)
        port = listener.getsockname()[1]
        made.append(listener)
    return made


def was_reset(caller: socket.socket) -> bool:
    caller.setblocking(False)
    try:
        return caller.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def drained(listener: socket.socket) -> int:
    """How many connections waited."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
