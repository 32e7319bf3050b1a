"""A consumer of the driver, and the thread that polls it.

What the thread finds goes to the event loop as callbacks, in order. What a consumer reads, all partitions or its share
of them, is said by the classes in `_everything` and `_membership`.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from pymicro_broker_kafka._client import Net, Settings
from pymicro_broker_kafka._driver import KafkaConsumer
from pymicro_broker_kafka._progress import Progress

POLL: Final = 0.1  # seconds of one wait for records; a consumer that closes waits for its end

_FULL: Final = 0.05  # seconds between two looks at the group while nothing is fetched
_REST: Final = 0.1  # seconds after an error
_LEAVE: Final = 1.0  # seconds for what is said at the end
_FETCH: Final = 2 * 1024**2  # bytes of one answer, but for a larger message; the driver makes several copies


class Owner(Protocol):
    """Who a polled consumer reports to, in the event loop."""

    def on_assigned(self, kept: set[Any], new: dict[Any, Progress]) -> None:
        """These partitions are this consumer's, and no others: some as before, some from here on."""

    def on_release(self, partitions: set[Any]) -> None:
        """Begin nothing more of these partitions."""

    def read(self, record: Any) -> Any:
        """What is in a record. Called in the thread: the event loop has more to do, and this one waits a lot."""

    def on_records(self, partition: Any, records: list[tuple[Any, Any]]) -> None:
        """Records of one partition arrived, each with what was read."""

    def on_connected(self, connected: bool) -> None:
        """Connections came or went."""

    def on_error(self, error: BaseException) -> None:
        """Something failed; it is tried again unless the consumer never began."""

    def on_ready(self) -> None:
        """What is published from now on arrives."""

    def on_ended(self) -> None:
        """Nothing more comes."""


class Polled(ABC):
    """A consumer of a topic that exists.

    Args:
        settings: how it is made.
        topic: what it consumes.
        kept: begin with what the topic has.
        owner: hears of everything.
    """

    def __init__(self, settings: Settings, topic: str, kept: bool, owner: Owner) -> None:
        self.settings = settings
        self.topic = topic
        self.kept = kept
        self.owner = owner
        self.net = Net(settings)
        self.consumer: Any = None
        #: Whose records are handed over, and the offset of the next one of each.
        self.mine: set[Any] = set()
        self.next: dict[Any, int] = {}
        #: Nothing that was read of `mine` holds any longer.
        self.lost = False
        self.ready = False
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"kafka {topic}", daemon=True)
        #: How many records may be handed over in all, by the owner, and how many were, by the thread.
        self._granted = 0
        self._taken = 0
        self._topic_id: Any = None
        self._connected = False

    # for the event loop

    def start(self) -> None:
        """Begin. The owner hears `on_ended` sooner or later, whatever happens."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether there is, or was, a thread."""
        return self._thread.ident is not None

    @property
    def made(self) -> bool:
        """Whether the driver has a consumer: it reached a server."""
        return self.consumer is not None

    def stop(self) -> None:
        """End soon."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Have the thread look again."""
        self._wake.set()

    def grant(self, records: int) -> None:
        """Let so many more records be handed over."""
        full = self._granted <= self._taken
        self._granted += records
        if full:
            self.wake()

    # for those who say what is read, in the thread

    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """What the driver's consumer is made with besides."""

    @abstractmethod
    def begin(self) -> None:
        """The consumer was made."""

    @abstractmethod
    def prepare(self) -> None:
        """Before each look for records."""

    @abstractmethod
    def follow(self) -> None:
        """After each look for records."""

    @property
    @abstractmethod
    def hurried(self) -> bool:
        """Whether to look again at once, though nothing may be handed over."""

    def leave(self) -> None:
        """Before the consumer is closed."""

    def partitions(self) -> set[int]:
        """Those that the topic has; none while a server does not know it."""
        return set(self.consumer.partitions_for_topic(self.topic) or ())

    def seek(self, tp: Any, offset: int) -> None:
        """Go on there."""
        self.consumer.seek(tp, offset)
        self.next[tp] = offset

    def say_ready(self) -> None:
        """Tell the owner, once."""
        if not self.ready:
            self.ready = True
            self._look_at_connections()
            self.tell(self.owner.on_ready)

    def tell(self, what: Callable[..., None], *args: Any) -> None:
        """Call a method of the owner in the event loop."""
        with suppress(RuntimeError):  # the loop was closed, and nobody waits
            self._loop.call_soon_threadsafe(what, *args)

    # the thread

    def _main(self) -> None:
        try:
            self.consumer = self._make()
        except Exception as error:
            self.tell(self.owner.on_error, error)
        else:
            try:
                self._serve()
            finally:
                with suppress(Exception):
                    self.leave()
                with suppress(Exception):
                    self.consumer.close(autocommit=False, timeout_ms=_LEAVE * 1000)
        finally:
            self.tell(self.owner.on_ended)

    def _make(self) -> Any:
        return self.net.make(
            KafkaConsumer,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metrics_enabled=False,
            fetch_max_bytes=_FETCH,
            **self.config(),
        )

    def _serve(self) -> None:
        self.begin()
        while not self._stopping:
            try:
                self._turn()
            except Exception as error:
                self.tell(self.owner.on_error, error)
                self._wait(_REST)
            self._look_at_connections()

    def _turn(self) -> None:
        room = self._granted - self._taken
        if room <= 0 and not self.hurried and self._wait(_FULL):
            return
        self._look_at_topic()
        self.prepare()
        for tp in self._readable():
            (self.consumer.resume if room > 0 else self.consumer.pause)(tp)
        found = self.consumer.poll(timeout_ms=POLL * 1000 if room > 0 else 1, max_records=max(1, room))
        # Those of partitions that are new come again: where to begin there is found out first.
        mine = set() if self.lost else self._readable()
        self._hand_over({tp: batch for tp, batch in found.items() if tp in mine})
        self.follow()

    def _readable(self) -> set[Any]:
        return self.mine & set(self.consumer.assignment())

    def _look_at_topic(self) -> None:
        """What was read of a topic says nothing of one that was made anew, after a server lost it."""
        there = self.net.cluster.topic_id(self.topic)
        if there is not None and there != self._topic_id:
            self.lost = self.lost or self._topic_id is not None
            self._topic_id = there

    def _hand_over(self, found: dict[Any, list[Any]]) -> None:
        # A server may lose the end of a log, and the driver goes back to what there is.
        back = {tp: batch[0].offset for tp, batch in found.items() if batch[0].offset < self.next[tp]}
        if back:
            new = {tp: Progress(offset) for tp, offset in back.items()}
            self.tell(self.owner.on_assigned, self.mine - set(back), new)
        for tp, batch in found.items():
            self._taken += len(batch)
            self.next[tp] = batch[-1].offset + 1
            self.tell(self.owner.on_records, tp, [(record, self.owner.read(record)) for record in batch])

    def _wait(self, seconds: float) -> bool:
        """Whether there is a reason to look again before so long."""
        woken = self._wake.wait(seconds)
        self._wake.clear()
        return woken

    def _look_at_connections(self) -> None:
        connected = self.net.connected
        if connected is not self._connected:
            self._connected = connected
            self.tell(self.owner.on_connected, connected)
