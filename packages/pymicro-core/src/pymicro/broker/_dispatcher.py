"""The one dispatcher that gives every broker concurrency, order, retries, dead letters and draining.

What happens to a delivery:

    received -> waits in the lane of its key -> handler -> settled
                       ^                           |
                       +---- again, in place ------+

* One task receives, never more than `prefetch` deliveries at a time. Workers, which are tasks too, take one group of
  deliveries (one, or a batch) after the other, run the handler and then settle; at most `concurrency` of them are in a
  handler. One worker does it all as long as it need not wait; when it does, each group that is left gets one.
* The lane of a key opens when the handler ended. Only what is tried again in place keeps it closed.
* A delivery is retried through the broker where that counts (`REDELIVERY`), else in place. A broker that cannot delay
  (`DELAY`) has the delivery held here until the delay passed; it counts to `prefetch` while it waits.
* What was lent for a time is extended for as long as it is here, waiting or handled. When that fails until the lease
  is over, another consumer may have it: its handler is cancelled.
* A dead letter is published before its delivery is settled, so it may be doubled and is never lost.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from pymicro._internal.backoff import backoff
from pymicro._internal.logs import log
from pymicro.broker._contract import Broker, Consumer
from pymicro.broker._lanes import Lanes
from pymicro.broker._retry import RetryPolicy
from pymicro.broker._settling import Settler
from pymicro.broker._types import Ack, Delivery, Reject, Retry, Settlement, bind
from pymicro.broker._work import DONE, Fault, Leases, Work
from pymicro.clock import Clock, SystemClock, TimerHandle
from pymicro.errors import Closed, ConnectionFailed, InvalidOption, UsageError
from pymicro.plugins.toolkit import Component

Handler = Callable[[Any], Awaitable[None]]

_FIRST_WAIT: Final = 0.1  # seconds before the broker is tried again
_LONGEST_WAIT: Final = 5.0
_ACK: Final = Ack()


class Dispatcher(Component):
    """Hands the messages of one topic to a handler. `async with` attaches it; leaving closes it at once.

    Opening attaches to the broker. If the broker cannot be reached, that is tried again in the background, and
    `attached` says so.

    Args:
        broker: an open broker.
        topic: the topic to consume.
        handler: takes a delivery, or a list of deliveries when `batch` is given. It runs in a context of its own.
        queue: consumers of one queue share its messages; empty: all of them.
        concurrency: how many calls of the handler run at a time.
        prefetch: how many unsettled deliveries are here at a time, waiting ones included; None: twice as many as the
            handlers can have in hands.
        retry: what happens after a failure; None for `RetryPolicy()`.
        batch: the most deliveries of one call, and the seconds to wait for them after the first; None: one by one.
        manual: whether the handler settles each delivery itself; one that it leaves unsettled counts as failed.
            Otherwise a delivery is acknowledged when the handler returns, unless it was settled before.
        native: subscription options of the broker's plugin.
        clock: the time for delays, leases and draining.
        logger: for what goes wrong.
        timeout: seconds for the publishing of one dead letter, and for each step of closing.

    Raises:
        InvalidOption: a number is out of its range.
        BackendRefused: on opening, the broker said no.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        handler: Handler,
        *,
        queue: str = "",
        concurrency: int = 16,
        prefetch: int | None = None,
        retry: RetryPolicy | None = None,
        batch: tuple[int, float] | None = None,
        manual: bool = False,
        native: Any = None,
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
        timeout: float = 5.0,
    ) -> None:
        self._size, self._wait = batch or (1, 0.0)
        self._prefetch = prefetch if prefetch is not None else 2 * concurrency * self._size
        if concurrency < 1 or self._size < 1 or self._prefetch < self._size:
            raise InvalidOption(
                f"subscription to {topic!r}: concurrency and batch size are at least 1, prefetch a batch"
            )
        self._broker = broker
        self._topic = topic
        self._handler = handler
        self._queue = queue
        self._concurrency = concurrency
        self._policy = retry or RetryPolicy()
        self._batched = batch is not None
        self._manual = manual
        self._native = native
        self._clock: Clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("pymicro.broker")
        self._timeout = timeout

        self._settler = Settler(broker, self._policy, self._clock, self._logger, topic, timeout)
        self._fault = Fault(self._logger, "subscription", topic=topic, queue=queue)
        self._leases = Leases(self._clock, Fault(self._logger, "extending of deliveries", topic=topic), timeout)
        self._consumer: Consumer | None = None
        self._held: set[Work] = set()
        self._lanes: Lanes[Work] = Lanes()
        self._running = 0
        self._due = False  # the deliveries that wait shall not wait for a full batch
        self._timer: TimerHandle | None = None
        self._draining = False
        self._begin_pending = True
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._context = contextvars.Context()
        self._loop: asyncio.AbstractEventLoop
        self._name = f"handle {topic}"
        self._workers: set[asyncio.Task[None]] = set()
        self._helping = False
        self._receiver: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def attached(self) -> bool:
        """Whether messages of the topic reach this dispatcher now."""
        return self._consumer is not None and not self._draining and self._consumer.attached

    @property
    def in_flight(self) -> int:
        """How many deliveries are here: waiting, in a handler, or on their way back to the broker."""
        return len(self._held)

    async def drain(self, timeout: float, *, pending: bool = True) -> None:
        """Take no more messages, finish, and close. What is unfinished then goes back to the broker.

        Cancellation closes at once.

        Args:
            timeout: seconds for what is here already; handlers still running then are cancelled.
            pending: whether deliveries that no handler has begun are handled too.
        """
        try:
            if self.is_open:
                self._draining = True
                self._begin_pending = self._begin_pending and pending
                await self._stop_receiving()
                await self._finish(timeout)
        finally:
            await self.aclose()

    async def _stop_receiving(self) -> None:
        consumer, receiver = self._consumer, self._receiver
        detached = consumer is not None and await self._bounded("detaching", consumer.detach())
        if receiver is not None and (not detached or self._fault.active or not self._begin_pending):
            receiver.cancel()

    async def _finish(self, timeout: float) -> None:
        if self._settler.redelivers or not self._begin_pending:
            self._settler.hurry()
        self._schedule()
        self._check_idle()
        if timeout > 0:
            timer = self._clock.call_later(timeout, self._idle.set)
            try:
                await self._idle.wait()
            finally:
                timer.cancel()

    async def _open(self) -> None:
        # Handlers see the variables of who opened the dispatcher, and nothing of each other.
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        try:
            await self._attach()
        except ConnectionFailed as error:
            if not error.transient:
                raise
            self._fault.begin(error)
        self._receiver = self._task(self._receive(), f"receive {self._topic}")
        self._receiver.add_done_callback(lambda _: self._check_idle())

    async def _close(self) -> None:
        self._begin_pending = False
        self._idle.set()
        if self._timer is not None:
            self._timer.cancel()
        background = [task for task in (self._receiver, self._keeper) if task is not None]
        try:
            await self._cancel({*self._workers, *background})
        finally:
            if self._consumer is not None:
                await self._bounded("closing", self._consumer.aclose())
            lost = sum(not work.told for work in self._held)
            if lost and not self._settler.redelivers:
                log(self._logger, logging.WARNING, "deliveries lost", topic=self._topic, number=lost)
            self._held.clear()

    async def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        tasks -= {asyncio.current_task()}  # a handler may close its own dispatcher
        for task in tasks:
            task.cancel()
        if tasks:
            _, deaf = await asyncio.wait(tasks, timeout=self._timeout)
            if deaf:
                log(self._logger, logging.WARNING, "handlers ignore cancellation", topic=self._topic, number=len(deaf))

    async def _bounded(self, what: str, step: Awaitable[None]) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                await step
        except Exception as error:
            log(self._logger, logging.WARNING, f"{what} failed", topic=self._topic, error=repr(error))
            return False
        return True

    def _task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._loop.create_task(coroutine, name=name, context=self._context.copy())

    # Receiving

    async def _attach(self) -> Consumer:
        consumer = await self._broker.consume(
            self._topic, queue=self._queue, prefetch=self._prefetch, native=self._native
        )
        self._consumer = consumer
        self._fault.end()
        if self._keeper is not None:
            self._keeper.cancel()
        if consumer.lease is not None:
            self._keeper = self._task(self._leases.keep(consumer, consumer.lease, self._held), f"extend {self._topic}")
        return consumer

    async def _receive(self) -> None:
        failures = 0
        while True:
            await self._room.wait()
            try:
                consumer = self._consumer or await self._attach()
                deliveries = await consumer.receive(self._prefetch - len(self._held))
            except Exception as error:
                if isinstance(error, Closed):
                    if self._draining:
                        return
                    await self._discard_consumer()
                self._fault.begin(error)
                failures += 1
                await self._clock.sleep(backoff(failures, first=_FIRST_WAIT, longest=_LONGEST_WAIT))
                continue
            failures = 0
            self._fault.end()
            for delivery in deliveries:
                self._accept(consumer, delivery)
            self._schedule()

    async def _discard_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._bounded("closing", consumer.aclose())

    def _accept(self, consumer: Consumer, delivery: Delivery[Any]) -> None:
        work = Work(consumer, delivery, self._settler.finish)
        if consumer.lease is not None:
            work.expires = self._clock.monotonic() + consumer.lease
        bind(delivery, work)
        self._held.add(work)
        if len(self._held) >= self._prefetch:
            self._room.clear()
        self._lanes.add(delivery.key, work)

    def _forget(self, work: Work) -> None:
        self._held.discard(work)
        bind(work.delivery, DONE)
        if not self._room.is_set() and len(self._held) < self._prefetch:
            self._room.set()

    def _check_idle(self) -> None:
        waiting = self._lanes.ready and self._begin_pending
        if self._receiver is not None and self._receiver.done() and not self._workers and not waiting:
            self._idle.set()

    # Handling

    def _schedule(self) -> None:
        """Have a worker begin, if there is something to do and a slot is free."""
        if self._waits():
            self._employ()
        else:
            self._watch_batch()

    def _watch_batch(self) -> None:
        """What is too little for a batch waits for more, and not for ever."""
        if self._timer is None and self._lanes.ready and self._begin_pending and not self._enough():
            self._timer = self._clock.call_later(self._wait, self._flush)

    def _waits(self) -> bool:
        """Whether a group waits that may begin now."""
        lanes = self._lanes
        return (
            lanes.ready > 0
            and self._running < self._concurrency
            and self._begin_pending
            and (lanes.ready >= self._size or self._enough())
        )

    def _enough(self) -> bool:
        return self._lanes.ready >= self._size or self._due or self._draining

    def _flush(self) -> None:
        self._timer = None
        self._due = True
        self._schedule()

    def _employ(self) -> None:
        task = self._task(self._work(), self._name)
        if not task.done():  # where tasks begin eagerly, it may be
            self._workers.add(task)

    def _call_help(self) -> None:
        """Should the worker that asks wait in this turn of the loop, others begin in the next."""
        self._helping = True
        self._loop.call_soon(self._help)

    def _help(self) -> None:
        self._helping = False
        if self._waits():
            groups = -(-self._lanes.ready // self._size)
            for _ in range(min(groups, self._concurrency - self._running)):
                self._employ()
        else:
            self._watch_batch()

    async def _work(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        try:
            while self._waits():
                if self._batched:
                    self._end_batch()
                group = self._lanes.take(self._size)
                self._running += 1
                if self._lanes.ready and not self._helping:
                    self._call_help()
                await self._handle(task, group)
                if contextvars.copy_context() != self._context:
                    self._schedule()  # what a handler left there is not for the next one to see
                    break
        finally:
            self._workers.discard(task)
            self._check_idle()

    def _end_batch(self) -> None:
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _handle(self, task: asyncio.Task[Any], group: list[Work]) -> None:
        error = await self._call(task, group)
        self._running -= 1
        if error is not None:
            self._report(group, error)
        if len(group) == 1:  # most are, and each step costs
            work = group[0]
            settlement = self._decide(work, error, True)
            self._let_go(work, settlement)
            if self._lanes.ready and not self._helping:
                self._call_help()
            if settlement is _ACK:
                await self._settler.acknowledge(work, _ACK)
                self._forget(work)
            else:
                await self._conclude(work, settlement)
        else:
            settlements = [self._decide(work, error, False) for work in group]
            for work, settlement in zip(group, settlements, strict=True):
                self._let_go(work, settlement)
            if not self._helping:
                self._call_help()
            await asyncio.gather(*map(self._conclude, group, settlements))

    async def _call(self, task: asyncio.Task[Any], group: list[Work]) -> BaseException | None:
        """The handler's error, or None. Raises only to end `task`, which is this dispatcher's own."""
        most = self._policy.max_deliveries
        works = [work for work in group if not work.lost and work.delivery.count <= most]
        if not works:
            return None
        for work in works:
            work.handling = task
        argument = [work.delivery for work in works] if self._batched else works[0].delivery
        error: BaseException | None = None
        try:
            await self._handler(argument)
        except asyncio.CancelledError as caught:
            if not self.is_open:
                raise
            error = caught
        except Exception as caught:
            error = caught
        finally:
            for work in works:
                work.handling = None
        if task.cancelling():
            await self._take_back(task)
        return error

    async def _take_back(self, task: asyncio.Task[Any]) -> None:
        """A lost lease, or the handler itself, asked for the end of the handler and not of its worker."""
        while task.cancelling() and self.is_open:
            task.uncancel()
        try:
            await asyncio.sleep(0)  # before Python 3.13 what was not heard yet is still heard at the next wait
        except asyncio.CancelledError:
            if not self.is_open:
                raise

    def _decide(self, work: Work, error: BaseException | None, alone: bool) -> Settlement | None:
        """What is to be told to the broker; None: it was told."""
        count = work.delivery.count
        last = count >= self._policy.max_deliveries
        if work.told:
            return None
        if work.lost:
            return Retry()
        if work.settlement is not None:
            asked_in_vain = isinstance(work.settlement, Retry) and last
            return Reject("retry was asked for after the last delivery") if asked_in_vain else work.settlement
        if count > self._policy.max_deliveries:
            return Reject(f"delivered {count - 1} times, and never finished")
        if error is None and self._manual:
            error = UsageError("the handler returned without settling the delivery")
            self._report([work], error)
        return self._policy.decide(error, count, alone=alone) if error is not None else _ACK

    def _let_go(self, work: Work, settlement: Settlement | None) -> None:
        """Open the lane, unless the delivery is tried again in its place."""
        if settlement is _ACK or not self._stays(work, settlement):
            self._lanes.release(work)

    def _stays(self, work: Work, settlement: Settlement | None) -> bool:
        return isinstance(settlement, Retry) and not work.lost and self._settler.stays(work.delivery)

    async def _conclude(self, work: Work, settlement: Settlement | None) -> None:
        if isinstance(settlement, Retry) and self._stays(work, settlement):
            if await self._settler.pause(settlement.delay):
                work.again()
                self._lanes.release(work, again=True)
                self._schedule()
                return
            self._lanes.release(work)
        work.settlement = work.settlement or settlement
        if settlement is None or await self._settler.conclude(work, settlement):
            self._forget(work)

    def _report(self, group: list[Work], error: BaseException) -> None:
        cancelled = isinstance(error, asyncio.CancelledError)
        log(
            self._logger,
            logging.INFO if cancelled else logging.WARNING,
            "handler cancelled" if cancelled else "event failed",
            topic=self._topic,
            queue=self._queue,
            count=",".join(str(work.delivery.count) for work in group),
            error=repr(error),
            exc_info=None if cancelled else error,
        )
