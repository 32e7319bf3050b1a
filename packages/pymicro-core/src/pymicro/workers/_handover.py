"""What a worker process is told by the supervisor that started it."""

from __future__ import annotations

import os
from typing import Final

import msgspec

#: The environment variable that makes a process a worker.
VARIABLE: Final = "PYMICRO_WORKER"


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is and what it was given.

    Attributes:
        slot: its place among the workers, from 1.
        id: the process's own id in the mesh.
        control: file descriptor of the channel to the supervisor.
        sockets: file descriptors of the listening sockets of all slots, in order; empty where the transport has none.
        address: where they listen; None where there are none.
    """

    slot: int
    id: str
    control: int
    sockets: tuple[int, ...] = ()
    address: str | None = None


def _take() -> Handover | None:
    """Read the variable and remove it, so that no program which this one starts takes itself for a worker."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    handover = msgspec.json.decode(text, type=Handover)
    for descriptor in (handover.control, *handover.sockets):
        os.set_inheritable(descriptor, False)
    return handover


_taken: list[Handover | None] = [_take()]


def handed_over() -> Handover | None:
    """What this process was handed as a worker; None in others, and the second time."""
    taken, _taken[0] = _taken[0], None
    return taken
