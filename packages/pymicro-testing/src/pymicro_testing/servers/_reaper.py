"""Ends what a test session left running, also when the session was killed.

Run as a program it reads from standard input which process groups and folders there are, one to a line, and when that
ends, because whoever wrote it is gone, it kills and deletes what is still entered.

A program is started by a shell that holds the same pipe: it enters its own group and only then becomes the program.
So there is no moment at which a killed session leaves a program that nobody knows of: until its group is entered, the
pipe has not ended.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

_END = 5.0
_ENTER = 'echo "+group $$" >&0 && exec "$@" </dev/null'


class Reaper:
    """The reaper of this process, as a process of its own."""

    _shared: ClassVar[Reaper | None] = None

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self._close)

    @classmethod
    def shared(cls) -> Reaper:
        """The one of this process, started when first asked for. A fork gets its own."""
        if cls._shared is None or cls._shared._owner != os.getpid():
            cls._shared = cls()
        return cls._shared

    def launch(self, command: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
        """Run it in a session and process group of its own, which is killed when this process is gone.

        Args:
            how: what `Popen` takes besides. Its standard input is empty.
        """
        program = ["/bin/sh", "-c", _ENTER, "sh", *command]
        return subprocess.Popen(program, stdin=self._process.stdin, start_new_session=True, **how)

    def forget_group(self, group: int) -> None:
        """It has ended."""
        self._tell(f"-group {group}")

    def watch_folder(self, folder: Path) -> None:
        """Delete this folder when this process is gone."""
        self._tell(f"+folder {folder}")

    def forget_folder(self, folder: Path) -> None:
        """It is deleted."""
        self._tell(f"-folder {folder}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _close(self) -> None:
        if self._owner == os.getpid() and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END)


def main() -> None:
    """Read until the end, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it ends after those that it watches over
        signal.signal(number, signal.SIG_IGN)
    left: dict[str, set[str]] = {"group": set(), "folder": set()}
    for line in sys.stdin:
        kind, _, value = line.rstrip("\n").partition(" ")
        if kind[0] == "+":
            left[kind[1:]].add(value)
        else:
            left[kind[1:]].discard(value)
    for group in left["group"]:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(int(group), signal.SIGKILL)
    for folder in left["folder"]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
