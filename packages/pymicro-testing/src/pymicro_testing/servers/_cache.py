"""What is got once and kept outside the checkout: servers that no package manager has."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from pymicro_testing.servers._native import MissingServerError
from pymicro_testing.servers._reaper import Reaper

_LIMIT: Final = 1200.0  # seconds for one command: a build on a small machine, with a slow network
_TAIL: Final = 4000


def cached(name: str) -> Path:
    """Where a thing of this name is kept, whether or not it is there."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pymicro-servers"
    return root / name


def make_once(name: str, make: Callable[[Path], Path]) -> Path:
    """What is kept under this name; made first if it is not there.

    Args:
        make: gets an empty folder and returns what it made in it, a file or a folder. It appears in the cache whole
            or not at all, and others who want it meanwhile wait for it.
    """
    import fcntl  # here, because Windows has none and may import this module

    target = cached(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            for stale in target.parent.glob(f".{name}-*"):  # of one that was killed, with its reaper or the machine
                shutil.rmtree(stale, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}-"))
            Reaper.shared().watch_folder(folder)
            try:
                make(folder).rename(target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                Reaper.shared().forget_folder(folder)
    return target


def run(server: str, command: Sequence[str], folder: Path, **environment: str) -> None:
    """Run a command in a folder. It ends with this process, however that ends.

    Raises:
        MissingServerError: it failed or took more than 20 minutes; with the end of what it said.
    """
    variables = os.environ | environment
    reaper = Reaper.shared()
    with reaper.launch(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            said = process.communicate(timeout=_LIMIT)[0]
            ending = f"failed with status {process.returncode}"
        except subprocess.TimeoutExpired as late:
            said, ending = late.stdout or b"", f"took more than {_LIMIT:g} seconds"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            reaper.forget_group(process.pid)
    if process.returncode != 0:
        text = said.decode("utf-8", "replace")[-_TAIL:]
        raise MissingServerError(
            f"{server}: `{shlex.join(command)}`, which needs a network, {ending}; it said:\n{text}"
        )
