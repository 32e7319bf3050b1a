"""What the programs of the soak share: its messages, and what a process holds."""

import asyncio
import gc
import os
from dataclasses import dataclass


@dataclass
class Job:
    seconds: float


@dataclass
class Done:
    node: str


@dataclass
class Held:
    """What this process holds while it rests: tasks, descriptors, objects, and resident bytes."""

    tasks: int
    descriptors: int
    objects: int
    memory: int


def held() -> Held:
    gc.collect()
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Held(len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), len(gc.get_objects()), memory)
