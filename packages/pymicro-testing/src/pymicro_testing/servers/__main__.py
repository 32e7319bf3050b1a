"""Starts servers by hand: `python -m pymicro_testing.servers redis nats`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from pymicro_testing.servers import SERVERS, MissingServerError, ServerFailedError
from pymicro_testing.servers._session import Session


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m pymicro_testing.servers",
        description="Start servers on loopback, with free ports and throw-away data; Ctrl-C ends and deletes them.",
    )
    parser.add_argument("name", nargs="+", choices=sorted(SERVERS), metavar="NAME", help=", ".join(sorted(SERVERS)))
    parser.add_argument("--tls", action="store_true", help="speak TLS only, and demand certificates of clients")
    parser.add_argument("--credentials", action="store_true", help="demand user name and password")
    parser.add_argument("--install", action="store_true", help="start nothing; get what is missing, or say how to")
    return parser.parse_args(arguments)


def serve(asked: argparse.Namespace) -> None:
    """Run them until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), Session() as session:
        for name in dict.fromkeys(asked.name):
            server = session.get(name, tls=asked.tls, credentials=asked.credentials)
            _say(
                name,
                server.address,
                *(("user", server.username, "password", server.password) if server.password else ()),
            )
        if asked.tls:
            files = session.certificates()
            _say("authority", files.authority, "certificate", files.certificate, "key", files.key)
        _say("running until Ctrl-C")
        while True:
            signal.pause()


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    asked = parse(arguments)
    try:
        if asked.install:
            for name in dict.fromkeys(asked.name):
                _say(name, SERVERS[name].install())
        else:
            serve(asked)
    except (MissingServerError, ServerFailedError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
