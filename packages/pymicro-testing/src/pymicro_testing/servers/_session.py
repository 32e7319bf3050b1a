"""The servers of one test session."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from pymicro_testing.servers import SERVERS, Certificates, NativeServer
from pymicro_testing.servers._reaper import Reaper


class Session:
    """Starts each server once, and ends all of them. Its methods block; they work inside a running loop, too."""

    def __init__(self) -> None:
        self._servers: dict[object, NativeServer] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="pymicro-certificates-"))
        Reaper.shared().watch_folder(self._folder)
        self._certificates: Certificates | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end(self._servers)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            Reaper.shared().forget_folder(self._folder)

    def get(
        self,
        name: str,
        *,
        number: int = 1,
        tls: bool = False,
        credentials: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> NativeServer:
        """A server that answers: the same object for the same arguments.

        Args:
            name: a key of `SERVERS`.
            number: which one of several that are alike.
            tls: speak TLS only, and demand certificates of clients. All servers of a session have one authority.
            credentials: demand user name and password.
            settings: what its configuration says besides.

        Raises:
            KeyError: there is no such kind.
            MissingServerError: it is not installed.
            ServerFailedError: it does not answer.
        """
        key = (name, number, tls, credentials, frozenset((settings or {}).items()))
        if key not in self._servers:
            certificates = self.certificates() if tls else None
            self._servers[key] = SERVERS[name](tls=certificates, credentials=credentials, settings=settings)
        server = self._servers[key]
        _run(server.start)
        return server

    def certificates(self) -> Certificates:
        """Those of this session's servers and their clients."""
        if self._certificates is None:
            self._certificates = Certificates.make(self._folder)
        return self._certificates

    def end_large(self) -> None:
        """End those that take much memory; who asks for one again gets a new one."""
        self._end(key for key, server in self._servers.items() if server.large)

    def _end(self, keys: Iterable[object]) -> None:
        ending = [self._servers.pop(key) for key in list(keys)]

        async def close() -> None:
            await asyncio.gather(*(server.close() for server in ending))

        if ending:
            _run(close)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it in a thread of its own: this thread may have a loop that runs, or one that must not be disturbed."""
    with ThreadPoolExecutor(1, thread_name_prefix="pymicro-server") as thread:
        thread.submit(lambda: asyncio.run(work())).result()
