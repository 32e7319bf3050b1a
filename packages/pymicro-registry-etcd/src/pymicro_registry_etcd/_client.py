"""One etcd server over one channel: the few calls that a registry needs, and the one mapping of what goes wrong.

The calls are those that aetcd generated from etcd's API. Its `Client` is not used: it has no TLS, reads no pages,
renews no token, and its watches are unbounded and outlive a cancelled task.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import msgspec
from aetcd import rpc

from pymicro.errors import BackendRefused, BackendUnavailable
from pymicro.plugins import TLS
from pymicro_registry_etcd._wire import PREFIX

#: Keys that one answer holds at most, and bytes: etcd keeps values up to 1.5 MiB, records have a few kB.
PAGE: Final = 500
MAX_ANSWER: Final = 64 * 1024 * 1024

#: Keys that are read at most for one service, or for all of them.
MAX_KEYS: Final = 100_000

#: Operations that etcd takes in one transaction.
MAX_OPERATIONS: Final = 128

#: The server ends a watch when it lost its cluster, instead of keeping still.
_REQUIRE_LEADER: Final = ("hasleader", "true")

_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
    }
)

#: What etcd says to a token that ended, or is older than a change of users; each has a status of its own.
_OLD_TOKEN: Final = ("invalid auth token", "revision of auth store is old", "user name is empty")


class TokenExpired(BackendRefused):
    """The token of this connection is no longer taken: another connection gets a new one."""


class LeaseGone(Exception):
    """There is no such lease any more."""


class Entry(msgspec.Struct, frozen=True):
    """What lies under a key: the value, and the lease that it hangs on (0 for none)."""

    value: bytes
    lease: int


class State(msgspec.Struct, frozen=True):
    """What lies in a range of keys at one moment.

    Attributes:
        server: who said so; changes are to be asked of the same one.
        revision: the moment.
        entries: by key.
    """

    server: EtcdServer
    revision: int
    entries: dict[bytes, Entry]


class _Stream:
    """A call that is a stream. Closed, it holds nothing of it."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, request: Any) -> None:
        await self._call.write(request)

    async def read(self) -> Any:
        return await self._call.read()

    def close(self) -> None:
        self._call.cancel()
        self._call = None


class _Mapping:
    """Maps what comes out of gRPC to pymicro's errors.

    Not a generator: the frames of that one, and tracebacks from inside gRPC, hold the call, and that the socket, for as
    long as somebody keeps the error.
    """

    def __init__(self, server: EtcdServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        meaning = self._server.meaning(error)
        if meaning is None or error is None:
            return
        error.__traceback__ = None
        try:
            raise meaning from error
        finally:
            del meaning, error, trace  # an error whose traceback leads to itself would wait for the garbage collector


class _Stubs:
    """A channel, and etcd's services on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.auth, self.kv = rpc.AuthStub(channel), rpc.KVStub(channel)
        self.leases, self.watch = rpc.LeaseStub(channel), rpc.WatchStub(channel)


class EtcdServer:
    """One server. Every method is bounded by `timeout` and raises `BackendUnavailable` or `BackendRefused`.

    Args:
        address: `host:port`.
        tls: certificates; read now.
        username, password: see `EtcdOptions`.
        timeout, connect_timeout: seconds for one call, and for making the connection.

    Attributes:
        watches: how many watches are open.
    """

    def __init__(
        self, address: str, tls: TLS, *, username: str, password: str, timeout: float, connect_timeout: float
    ) -> None:
        self.address = address
        self.watches = 0
        self._username, self._password = username, password
        self._timeout, self._connect_timeout = timeout, connect_timeout
        self._token: tuple[tuple[str, str], ...] = ()
        self._open: _Stubs | None = _Stubs(_open_channel(address, tls, connect_timeout))

    async def greet(self) -> None:
        """Connect: log in, or ask something if there is no user name."""
        if not self._username:
            await self.probe()
            return
        request = rpc.AuthenticateRequest(name=self._username, password=self._password)
        with _Mapping(self):
            answer = await self._stubs.auth.Authenticate(request, timeout=self._connect_timeout)
        self._token = (("token", answer.token),)

    async def probe(self) -> None:
        """Ask something cheap that this server answers by itself, within `connect_timeout`."""
        request = rpc.RangeRequest(key=PREFIX.encode(), count_only=True, serializable=True)
        try:
            with _Mapping(self):
                await self._stubs.kv.Range(request, timeout=self._connect_timeout, metadata=self._token)
        except BackendRefused as error:
            if not _is_status(error, grpc.StatusCode.PERMISSION_DENIED):  # some may see only certain services
                raise

    async def read(self, start: bytes, end: bytes) -> State:
        """Everything in a range, page by page, as of one revision that a majority of the cluster knows."""
        entries: dict[bytes, Entry] = {}
        key, revision = start, 0
        while True:
            request = rpc.RangeRequest(key=key, range_end=end, limit=PAGE, revision=revision)
            with _Mapping(self):
                answer = await self._stubs.kv.Range(request, timeout=self._timeout, metadata=self._token)
            revision = revision or answer.header.revision
            entries.update((each.key, Entry(each.value, each.lease)) for each in answer.kvs)
            if not answer.more:
                return State(self, revision, entries)
            if len(entries) >= MAX_KEYS:
                raise BackendRefused(f"there are more than {MAX_KEYS} keys from {start!r} on", self.address)
            key = answer.kvs[-1].key + b"\0"

    @asynccontextmanager
    async def changes(self, start: bytes, end: bytes, state: State) -> AsyncIterator[AsyncIterator[Any]]:
        """Follow a range from `state` on: an iterator of lists of etcd's events, which ends with an error only."""
        stream = _Stream(self._stubs.watch.Watch(metadata=(*self._token, _REQUIRE_LEADER)))
        self.watches += 1
        try:
            create = rpc.WatchCreateRequest(key=start, range_end=end, start_revision=state.revision + 1)
            with _Mapping(self):
                async with asyncio.timeout(self._timeout):
                    await stream.write(rpc.WatchRequest(create_request=create))
                    created = await stream.read()
            self._check(created)
            if created.header.revision < state.revision:
                raise BackendUnavailable("it went back to an earlier state", self.address)
            yield self._events(stream)
        finally:
            self.watches -= 1
            stream.close()

    async def _events(self, stream: _Stream) -> AsyncIterator[Any]:
        while True:
            with _Mapping(self):
                answer = await stream.read()
            self._check(answer)
            yield answer.events

    def _check(self, answer: Any) -> None:
        """Raise unless the watch goes on."""
        if answer is grpc.aio.EOF:
            raise BackendUnavailable("the watch ended", self.address)
        if answer.compact_revision:
            raise BackendUnavailable("the changes asked for were compacted", self.address)
        if answer.canceled:
            raise BackendRefused(answer.cancel_reason or "the watch was cancelled", self.address)

    async def grant(self, lease: int, ttl: int) -> None:
        """Make a lease. One that exists is as good: an earlier attempt made it."""
        request = rpc.LeaseGrantRequest(ID=lease, TTL=ttl)
        try:
            with _Mapping(self):
                await self._stubs.leases.LeaseGrant(request, timeout=self._timeout, metadata=self._token)
        except BackendRefused as error:
            if "lease already exists" not in error.detail:
                raise

    async def keep_alive(self, lease: int) -> bool:
        """Let the lease run from its beginning again; whether it was there."""
        requests = iter([rpc.LeaseKeepAliveRequest(ID=lease)])
        stream = _Stream(self._stubs.leases.LeaseKeepAlive(requests, timeout=self._timeout, metadata=self._token))
        try:
            with _Mapping(self):
                answer = await stream.read()
        finally:
            stream.close()
        if answer is grpc.aio.EOF:
            raise BackendUnavailable("the lease was not renewed", self.address)
        return bool(answer.TTL > 0)

    async def revoke(self, lease: int) -> None:
        """End the lease, and everything that hangs on it. One that is gone is no error."""
        try:
            with _Mapping(self):
                await self._stubs.leases.LeaseRevoke(
                    rpc.LeaseRevokeRequest(ID=lease), timeout=self._timeout, metadata=self._token
                )
        except LeaseGone:
            pass

    async def put(self, values: Mapping[bytes, bytes], lease: int) -> None:
        """Put all values, on a lease or on none (0).

        Raises:
            LeaseGone: there is no such lease.
        """
        puts = [rpc.PutRequest(key=key, value=value, lease=lease) for key, value in values.items()]
        await self._transact([rpc.RequestOp(request_put=put) for put in puts])

    async def delete(self, keys: Iterable[bytes]) -> None:
        """Delete the keys; those that are not there are no error."""
        await self._transact([rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key)) for key in keys])

    async def _transact(self, operations: Sequence[Any]) -> None:
        for at in range(0, len(operations), MAX_OPERATIONS):
            request = rpc.TxnRequest(success=operations[at : at + MAX_OPERATIONS])
            with _Mapping(self):
                await self._stubs.kv.Txn(request, timeout=self._timeout, metadata=self._token)

    def meaning(self, error: BaseException | None) -> BaseException | None:
        """What an error of a call means to pymicro; None for what did not come out of gRPC."""
        if isinstance(error, grpc.aio.AioRpcError):
            return self._refusal(error.code(), error.details() or error.code().name)
        if isinstance(error, TimeoutError):
            return BackendUnavailable("no answer in time", self.address)
        if isinstance(error, grpc.aio.BaseError | asyncio.InvalidStateError):
            return BackendUnavailable(f"the connection ended: {error}", self.address)
        if isinstance(error, asyncio.CancelledError):
            # Closing a channel cancels its calls, not the tasks that wait for them.
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                return BackendUnavailable("the connection was closed", self.address)
            return asyncio.CancelledError(*error.args)
        return None

    def _refusal(self, code: grpc.StatusCode, detail: str) -> Exception:
        if "requested lease not found" in detail:
            return LeaseGone()
        if self._username and any(reason in detail for reason in _OLD_TOKEN):
            return TokenExpired(detail, self.address)
        if code in _REFUSALS and "too many requests" not in detail:
            return BackendRefused(detail, self.address)
        return BackendUnavailable(detail, self.address)

    async def aclose(self) -> None:
        """Close the channel. What runs on it fails as with a lost connection."""
        # Forgotten, since a socket lives as long as the objects that belong to it, and tasks that ended hold this one.
        stubs, self._open = self._open, None
        if stubs is not None:
            await stubs.channel.close()

    @property
    def _stubs(self) -> _Stubs:
        if self._open is None:
            raise BackendUnavailable("the connection was closed", self.address)
        return self._open


def _is_status(error: BackendRefused, status: grpc.StatusCode) -> bool:
    return isinstance(error.__cause__, grpc.aio.AioRpcError) and error.__cause__.code() is status


def _open_channel(address: str, tls: TLS, connect_timeout: float) -> grpc.aio.Channel:
    options = (
        ("grpc.max_receive_message_length", MAX_ANSWER),
        # Channels to one address would share a connection, so that a new one inherits the hung one.
        ("grpc.use_local_subchannel_pool", 1),
        # Also the time after which gRPC gives up a connection whose other side says nothing; 20 s otherwise.
        ("grpc.min_reconnect_backoff_ms", max(1, int(connect_timeout * 1000))),
    )
    if not tls.enabled:
        return grpc.aio.insecure_channel(address, options=options)
    try:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(tls.ca or ssl.get_default_verify_paths().cafile),
            private_key=_read(tls.key or tls.cert),
            certificate_chain=_read(tls.cert),
        )
    except OSError as error:
        raise BackendUnavailable(f"TLS file {error.filename} cannot be read: {error.strerror}", address) from error
    return grpc.aio.secure_channel(address, credentials, options=options)


def _read(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None
