"""The checklist of Go Micro compatibility: which test shows which item, against which version of Go Micro.

Tests are marked `checklist(item)`. A session that ran all of them holds the page against what it saw, and fails when
they differ; with `PYMICRO_WRITE=1` in the environment it writes the page.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "go-micro-checklist.md"
WRITE: Final = "PYMICRO_WRITE"

MARKER: Final = (
    "checklist(item, against=None): shows that item of the checklist of Go Micro compatibility, against the version "
    "that `go_version` names, or against another one that the mark says"
)

#: What must hold, by number and in the order of the page.
ITEMS: Final = {
    "A pymicro client calls a Go server": {
        1: "Calls in JSON, protobuf and raw bytes return the right value; the request is a `POST /` with `Host`, "
        "`Micro-Service`, `Micro-Endpoint`, `Micro-Method`, `Micro-Id`, `Content-Type` and a `Timeout` in nanoseconds",
        2: "1000 calls in a row use one connection, and none is lost, though the server repeats the first `Micro-Id`",
        3: "Two calls at the same time use two connections",
        4: "A handler's error arrives with id, code, detail and status; one that is plain text as detail with code 0",
        5: "An unknown handler, an unknown method and an ill-formed name are different errors, and cost no connection",
        6: "A handler that panics costs the caller its time-out and the connection, and no later call",
        7: "A content type that the server does not know is an error, soon",
        8: "Envelopes: `json-rpc` and `proto-rpc`, also by themselves for a node that states no protocol",
        9: "Metadata reaches the handler, and `Timeout` sets its deadline",
        10: "No connection is opened without a request; a server that was restarted is reached again",
        11: "Bodies of 8 MiB both ways, headers of 900 kB; 1.1 MiB of headers are the server's 431",
        12: "A stream both ways: 100 rounds; either side ends it; the server fails in the middle; the caller cancels",
        13: "A stream from the server arrives whole and ends; its request is the stream's second message",
        14: "A stream to the server: all messages, its end, and then the one result",
        15: "TLS with an authority of one's own",
    },
    "A Go client calls a pymicro server": {
        16: "Items 1, 2, 4 and 5 the other way; an empty protobuf request, which Go sends in chunks",
        17: "An error of code 408 is repeated by Go, 6 attempts in all; one of code 500 is not",
        18: "A connection that idles for 75 s, by pymicro's clock, is kept, and Go's next call on it succeeds",
        19: "`Connection: close` from Go: an answer, then the end of the connection",
        20: "A handler without a result answers a JSON call with `{}`, which is no error to Go",
        21: "A call that carries `Micro-Stream`, `Local`, `Remote` or `Connection` by mistake is served",
        22: "A stream from Go: the message that opens it is not a request; answers come in order and whole, 1000 at "
        "once too; the end of either side is told to the other, and a handler that got Go's end finishes its work",
        23: "A handler's exception is an error of code 500, and the connection can be used again",
        24: "An event that is sent to the port for calls reaches the subscribers of its topic",
        25: "The deadline of `Timeout` cancels the handler",
    },
    "Registry": {
        26: "Multicast DNS: Go finds and lists a pymicro node with id, address, version, metadata and endpoints, large "
        "ones too",
        27: "Multicast DNS: pymicro finds a Go node once, at its IPv4 address",
        28: "Multicast DNS: watchers on both sides see nodes of the other come and go",
        29: "Multicast DNS: pymicro never asks from port 5353 nor takes an answer for a question; a look-up on a host "
        "that has both costs less than 50 datagrams",
        30: "Multicast DNS: names that do not fit into a label are refused",
        31: "etcd: keys with one node each under a lease; both find, call and watch each other; a node that was killed "
        "is forgotten with its lease",
        32: "Consul: both read the other's tags; a critical check hides a node; nodes come back to an agent that lost "
        "them",
        33: "NATS: questions, answers and announcements on `micro.nats.*`, or on the subjects of Go Micro's older "
        "plugin",
        34: "Two versions of one service are two entries",
    },
    "Events": {
        35: "HTTP broker: events in JSON and protobuf, both ways",
        36: "HTTP broker: all subscribers get an event, or one of a queue, whatever language they are in",
        37: "HTTP broker: answers to requests that make no sense",
        38: "NATS broker: events in JSON and protobuf, both ways; all subscribers get an event, or one of a queue",
        39: "RabbitMQ broker: the same, over the exchange that both declare; what one did not acknowledge goes to the "
        "other",
        40: "Kafka and Redis brokers: events in JSON and protobuf, both ways; all subscribers get an event, or, with "
        "Kafka, one of a queue",
        41: "An event without `Content-Type` is read as protobuf by both",
    },
    "Others": {
        42: "NATS transport: calls, errors, calls at one time, calls that share an inbox, and streams, both ways",
        43: "gRPC transport",
        44: "Native gRPC: calls",
        45: "Native gRPC: errors",
        46: "Native gRPC: streams",
        47: "RabbitMQ and TCP transports",
        48: "Stores: records in Redis, NATS and PostgreSQL",
        49: "Locks and leaders in etcd",
        50: "Tokens (JWT) of Go Micro's auth",
    },
}

#: What is not built yet, and why.
NOT_YET: Final = {
    **dict.fromkeys((43,), "not yet: no such transport yet"),
    **dict.fromkeys((47,), "not yet: no TCP transport; of Go Micro's for RabbitMQ no release can be had"),
    **dict.fromkeys((44, 45, 46), "not yet: no native gRPC yet"),
    **dict.fromkeys((48,), "not yet: no stores yet"),
    **dict.fromkeys((49,), "not yet: no locks yet"),
    **dict.fromkeys((50,), "not yet: no auth yet"),
}

NUMBERS: Final = {number for group in ITEMS.values() for number in group}

_HEAD: Final = """# Go Micro compatibility, item by item

What must hold between pymicro and Go Micro, and the tests that show it: each runs real Go Micro programs, built from
[our own sources](../../tests-integration/go/README.md), on every change. An item with several tests needs all of them.
[Join a Go Micro mesh](../how-to/join-go-micro.md) says what follows for a team that has both.

What the newest version, v6, puts on the wire is held against
[recordings of it](../../tests-integration/vectors/README.md).

The table is written by the test run itself: `PYMICRO_WRITE=1 hatch run test tests-integration`.
"""


class Mark:
    """One test that shows one item, in all its variants.

    Attributes:
        path: of the test's file.
        name: of its function.
        versions: of Go Micro that it ran against.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.versions: set[str] = set()


class Checklist:
    """A pytest plugin that watches the marked tests of one session.

    Args:
        config: of the session.
        page: the page to compare.
        folder: where all marked tests are; a session that has no test of one of its files is a partial one.
    """

    def __init__(self, config: pytest.Config, page: Path = PAGE, folder: Path = Path(__file__).parent) -> None:
        config.addinivalue_line("markers", MARKER)
        self._config = config
        self._page = page
        self._folder = folder
        self._marks: dict[int, dict[str, Mark]] = defaultdict(dict)
        self._expected: set[str] = set()
        self._ran: set[str] = set()
        self._files: set[Path] = set()
        self._partial = False
        self._said: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._files.add(item.path)
            if _items(item):
                self._expected.add(item.nodeid)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._partial = self._partial or any(_items(item) for item in items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" and not report.skipped:
            self._ran.add(item.nodeid)
            for number, against in _items(item):
                name = getattr(item, "originalname", item.name)
                mark = self._marks[number].setdefault(name, Mark(item.path, name))
                mark.versions.add(against)
        return report

    @property
    def _complete(self) -> bool:
        """Whether every marked test there is has run."""
        named = any("::" in argument for argument in self._config.args)
        whole = self._files.issuperset(self._folder.rglob("test_*.py"))
        return whole and not named and not self._partial and self._ran >= self._expected

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus or not self._expected or not self._complete:
            return  # what failed says so itself
        text = self._text()
        if os.environ.get(WRITE):
            self._page.write_text(text, encoding="utf-8")
            self._said.append(f"wrote {self._page.name}")
            return
        self._said += [f"item {number} has no test" for number in sorted(NUMBERS - set(NOT_YET) - set(self._marks))]
        if not self._page.exists() or self._page.read_text(encoding="utf-8") != text:
            self._said.append(f"{self._page.name} is not what this session saw; run the tests with {WRITE}=1")
        if self._said:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._said:
            terminalreporter.section("Go Micro checklist")
            for line in self._said:
                terminalreporter.line(line)

    def _text(self) -> str:
        parts = [_HEAD]
        for title, items in ITEMS.items():
            rows = "".join(self._row(number, what) for number, what in items.items())
            parts.append(f"\n## {title}\n\n| item | what | tests | passed against |\n| --: | --- | --- | --- |\n{rows}")
        return "".join(parts)

    def _row(self, number: int, what: str) -> str:
        marks = sorted(self._marks.get(number, {}).values(), key=lambda mark: (mark.path, mark.name))
        tests = "<br>".join(f"[`{mark.name}`]({self._link(mark.path)})" for mark in marks)
        versions = sorted({version for mark in marks for version in mark.versions}, reverse=True)
        return f"| {number} | {what} | {tests} | {', '.join(versions) or NOT_YET.get(number, 'none')} |\n"

    def _link(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._page.parent)).as_posix()


def _items(item: pytest.Item) -> list[tuple[int, str]]:
    """The numbers that a test is marked with, and the version of Go Micro that it runs against."""
    found: list[tuple[int, str]] = []
    for mark in item.iter_markers("checklist"):
        number, against = _read(item, *mark.args, **mark.kwargs)
        if number not in NUMBERS or number in NOT_YET:
            raise pytest.UsageError(f"{item.nodeid}: the checklist has no item {number!r}, or it is not built yet")
        found.append((number, against))
    return found


def _read(item: pytest.Item, number: Any, against: str | None = None) -> tuple[Any, str]:
    callspec = getattr(item, "callspec", None)
    version = against or (callspec.params.get("go_version") if callspec is not None else None)
    if not version:
        raise pytest.UsageError(f"{item.nodeid}: against which Go Micro? use `go_version`, or say `against`")
    return number, version
