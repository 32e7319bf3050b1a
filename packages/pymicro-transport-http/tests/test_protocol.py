"""Bytes into messages: framing, limits, and what must be refused."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from pymicro.errors import BadRequest, Disconnected, Error, ProtocolViolation, TooLarge, Unavailable
from pymicro.message import Message
from pymicro.plugins import Limits
from pymicro_transport_http._protocol import Parser, RequestParser, ResponseParser

LIMITS = Limits(message=1000, headers=500, buffer=1000)
HEAD = b"POST / HTTP/1.1\r\nHost: peer:1\r\n"


def requests(*segments: bytes, limits: Limits = LIMITS) -> RequestParser:
    parser = RequestParser(limits, "peer:1")
    feed(parser, segments)
    return parser


def responses(*segments: bytes, limits: Limits = LIMITS) -> ResponseParser:
    parser = ResponseParser(limits, "peer:1")
    feed(parser, segments)
    return parser


def feed(parser: Parser, segments: Iterable[bytes]) -> None:
    for segment in segments:
        if not parser.feed(segment):
            break


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def only(parser: Parser) -> Message:
    assert parser.fault is None
    [message] = parser.inbox
    return message


class TestMessages:
    def test_a_request_is_its_headers_and_its_body(self) -> None:
        message = only(requests(HEAD + b"Micro-Id: 7\r\nContent-Length: 3\r\n\r\nabc"))
        assert dict(message.headers) == {"Micro-Id": "7"}
        assert message.body == b"abc"

    def test_a_response_is_its_headers_and_its_body(self) -> None:
        message = only(responses(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nMicro-Id: 7\r\n\r\nabc"))
        assert dict(message.headers) == {"Micro-Id": "7"}
        assert message.body == b"abc"

    @pytest.mark.parametrize(
        "start", [b"GET /a/b?c HTTP/1.1", b"PUT //x HTTP/1.1", b"DELETE * HTTP/1.1", b"POST / HTTP/1.0"]
    )
    def test_any_method_and_path_is_a_message(self, start: bytes) -> None:
        assert only(requests(start + b"\r\nHost: x\r\nContent-Length: 1\r\n\r\na")).body == b"a"

    def test_a_request_without_length_has_no_body(self) -> None:
        assert only(requests(HEAD + b"\r\n")).body == b""

    def test_single_bytes_make_a_message(self) -> None:
        data = HEAD + b"Micro-Id: 7\r\nX-Text: \xc3\xa9\r\nContent-Length: 3\r\n\r\nabc"
        message = only(requests(*bytewise(data)))
        assert dict(message.headers) == {"Micro-Id": "7", "X-Text": "é"}
        assert message.body == b"abc"

    def test_chunks_make_a_body(self) -> None:
        data = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        for parser in (
            requests(HEAD + data),
            requests(HEAD, *bytewise(data)),
            responses(b"HTTP/1.1 200 OK\r\n" + data),
        ):
            message = only(parser)
            assert message.body == b"abcde"
            assert dict(message.headers) == {}

    def test_an_empty_chunked_body_is_empty(self) -> None:
        assert only(requests(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")).body == b""

    def test_trailers_are_not_headers_of_this_message_or_the_next(self) -> None:
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nMicro-Endpoint: Evil.Call\r\n\r\n"
        parser = requests(chunked + HEAD + b"Content-Length: 0\r\n\r\n")
        assert [dict(message.headers) for message in parser.inbox] == [{}, {}]

    def test_messages_that_come_together_are_told_apart(self) -> None:
        one = HEAD + b"Micro-Id: %d\r\nContent-Length: 1\r\n\r\n%d"
        data = b"".join(one % (n, n) for n in range(5))
        for size in range(1, len(data)):
            parser = requests(*(data[at : at + size] for at in range(0, len(data), size)))
            assert [(m.headers["micro-id"], m.body) for m in parser.inbox] == [(str(n), b"%d" % n) for n in range(5)]

    def test_a_large_body_in_many_segments_is_whole(self) -> None:
        body = random.Random(1).randbytes(100_000)
        limits = Limits(message=len(body))
        segments = [body[at : at + 500] for at in range(0, len(body), 500)]
        assert only(requests(HEAD + b"Content-Length: 100000\r\n\r\n", *segments, limits=limits)).body == body
        chunks = [b"%x\r\n%b\r\n" % (len(segment), segment) for segment in segments]
        head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        assert only(requests(head, *chunks, b"0\r\n\r\n", limits=limits)).body == body

    def test_the_body_of_one_segment_is_not_copied_again(self) -> None:
        parser = requests(HEAD + b"Content-Length: 3\r\n\r\n")
        parser.on_body(body := bytes(3))
        parser.on_message_complete()
        assert only(parser).body is body

    def test_only_the_first_value_of_a_name_is_seen(self) -> None:
        assert only(requests(HEAD + b"A: 1\r\nA: 2\r\na: 3\r\n\r\n")).headers["a"] == "1"

    def test_bytes_that_are_no_utf_8_are_replaced(self) -> None:
        assert only(requests(HEAD + b"A: x\xffy\r\n\r\n")).headers["a"] == "x\ufffdy"

    def test_framing_and_client_names_are_left_out_and_connection_is_not(self) -> None:
        noise = b"User-Agent: x\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert dict(only(requests(HEAD + noise)).headers) == {"Connection": "close"}
        assert dict(only(responses(b"HTTP/1.1 200 OK\r\n" + noise)).headers) == {"Connection": "close"}
        lower = b"POST / HTTP/1.1\r\nhost: x\r\n" + noise.lower()
        assert dict(only(requests(lower)).headers) == {"connection": "close"}

    def test_connection_close_and_http_1_0_end_nothing(self) -> None:
        closing = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\na"
        old = b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nb"
        assert [message.body for message in requests(closing + old + closing).inbox] == [b"a", b"b", b"a"]

    def test_a_stream_is_recognised(self) -> None:
        assert not requests(HEAD + b"Content-Length: 0\r\n\r\n").streaming
        assert requests(HEAD + b"Content-Length: 0\r\nMicro-Stream: 1\r\n\r\n").streaming


class TestRefusals:
    @pytest.mark.parametrize(
        "data",
        [
            HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
            HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
            HEAD + b"transfer-encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: identity\r\n\r\n",
            HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
            HEAD + b"Content-Length: 1, 1\r\n\r\na",
            HEAD + b"Content-Length: -1\r\n\r\n",
            HEAD + b"Content-Length: +1\r\n\r\na",
            HEAD + b"Content-Length: 0x1\r\n\r\na",
            HEAD + b"Content-Length: 1_0\r\n\r\na",
            HEAD + b"Content-Length: \r\n\r\n",
            HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
            HEAD + b"A: b\r\n folded\r\n\r\n",
            HEAD + b"A: b\x00c\r\n\r\n",
            HEAD + b"A: b\nC: d\r\n\r\n",
            HEAD + b"A: b\rC: d\r\n\r\n",
            HEAD + b"A b: c\r\n\r\n",
            HEAD + b": c\r\n\r\n",
            HEAD + b"no colon\r\n\r\n",
            b"POST / HTTP/1.1\r\n\r\n",
            b"POST /\r\n\r\n",
            b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"CONNECT peer:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            HEAD
            + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 29\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\0\0\0\0",
        ],
    )
    def test_what_can_be_read_in_two_ways_or_not_at_all_is_refused(self, data: bytes) -> None:
        for parser in (requests(data), requests(*bytewise(data))):
            assert isinstance(parser.fault, ProtocolViolation)
            assert parser.fault.address == "peer:1"
            assert not parser.inbox

    def test_an_upgrade_with_a_large_body_is_refused_however_it_comes(self) -> None:
        head = HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 50000\r\n\r\n"
        for segments in ([head + bytes(50_000)], [head, bytes(50_000)], [head + bytes(20_000), bytes(30_000)]):
            parser = requests(*segments, limits=Limits())
            assert isinstance(parser.fault, ProtocolViolation)
            assert not parser.inbox

    def test_what_came_before_is_still_there(self) -> None:
        parser = requests(HEAD + b"Content-Length: 1\r\n\r\na" + b"garbage\r\n\r\n")
        assert [message.body for message in parser.inbox] == [b"a"]
        assert isinstance(parser.fault, ProtocolViolation)

    def test_a_missing_host_is_named(self) -> None:
        assert "missing required Host header" in str(requests(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").fault)

    def test_a_tls_handshake_is_recognised(self) -> None:
        assert "TLS" in str(requests(b"\x16\x03\x01\x02\x00\x01").fault)
        assert "TLS" in str(responses(b"\x15\x03\x01\x00\x02\x02\x46").fault)

    def test_a_fault_of_this_program_is_not_blamed_on_the_peer(self) -> None:
        parser = RequestParser(LIMITS, "peer:1")
        parser.inbox = None  # type: ignore[assignment]  # something is broken inside
        with pytest.raises(Exception, match="callback"):
            parser.feed(HEAD + b"Content-Length: 0\r\n\r\n")


class TestLimits:
    @pytest.mark.parametrize("make", [RequestParser, ResponseParser])
    def test_a_length_over_the_limit_is_refused_before_the_body_comes(self, make: type[Parser]) -> None:
        start = HEAD if make is RequestParser else b"HTTP/1.1 200 OK\r\n"
        for length in (b"1001", b"00001001", b"1000000000000"):
            parser = make(LIMITS, "peer:1")
            assert not parser.feed(start + b"Content-Length: %b\r\n\r\n" % length)
            assert isinstance(parser.fault, TooLarge)

    @pytest.mark.parametrize("make", [RequestParser, ResponseParser])
    def test_a_length_may_be_written_as_long_as_headers_may_be(self, make: type[Parser]) -> None:
        start = HEAD if make is RequestParser else b"HTTP/1.1 200 OK\r\n"
        for digits, fits in ((5000 * b"0" + b"1", True), (5000 * b"0", True), (5000 * b"0" + b"1001", False)):
            parser = make(Limits(message=1000, headers=10_000), "peer:1")
            parser.feed(start + b"Content-Length: %b\r\n\r\na" % digits)
            assert (len(parser.inbox) == 1) == fits

    @pytest.mark.parametrize("make", [RequestParser, ResponseParser])
    def test_who_says_that_something_was_not_executed(self, make: type[Parser]) -> None:
        """A request that is refused was not; a response that is refused belongs to one that was."""
        start, executed = (HEAD, "no") if make is RequestParser else (b"HTTP/1.1 200 OK\r\n", "maybe")
        chunks = 11 * (b"64\r\n" + 100 * b"x" + b"\r\n")
        for rest in (
            b"Content-Length: 1001\r\n\r\n",
            b"A: " + 600 * b"x" + b"\r\n\r\n",
            b"A: " + 6000 * b"x",
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        ):
            parser = make(LIMITS, "peer:1")
            parser.feed(start + rest)
            assert isinstance(parser.fault, TooLarge)
            assert parser.fault.executed == executed

    def test_a_body_of_exactly_the_limit_passes(self) -> None:
        assert len(only(requests(HEAD + b"Content-Length: 0001000\r\n\r\n" + b"x" * 1000)).body) == 1000
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"
        assert len(only(requests(chunked)).body) == 1000

    def test_chunks_over_the_limit_are_refused(self) -> None:
        chunk = b"64\r\n" + b"x" * 100 + b"\r\n"
        head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        together = requests(head + 11 * chunk + b"0\r\n\r\n")
        apart = requests(head, *(11 * [chunk]))
        for parser in (together, apart):
            assert isinstance(parser.fault, TooLarge)
            assert not parser.inbox

    def test_headers_over_the_limit_are_refused(self) -> None:
        for fields in (b"A: " + b"x" * 500, b"\r\n".join(b"X-%d: y" % n for n in range(120))):
            for parser in (requests(HEAD + fields + b"\r\n\r\n"), requests(HEAD, *bytewise(fields + b"\r\n\r\n"))):
                assert isinstance(parser.fault, TooLarge)

    def test_headers_of_exactly_the_limit_pass_however_they_come(self) -> None:
        fields = b"".join(b"%c: \r\n" % n for n in b"abcdefgh") + b"X: " + b"y" * (500 - 9) + b"\r\n\r\n"
        assert len(only(requests(HEAD + fields)).headers) == 9
        assert len(only(requests(HEAD, *bytewise(fields))).headers) == 9

    def test_headers_behind_a_large_body_in_one_segment_are_counted_alone(self) -> None:
        parser = requests(
            HEAD + b"Content-Length: 1000\r\n\r\n", b"x" * 1000 + HEAD, b"A: b\r\nContent-Length: 0\r\n\r\n"
        )
        assert parser.fault is None
        assert len(parser.inbox) == 2

    @pytest.mark.parametrize(
        "start",
        [
            b"",
            b"POST /",
            HEAD + b"A: ",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: ",
        ],
    )
    def test_what_never_ends_is_refused_in_bounded_space(self, start: bytes) -> None:
        filler = b"\r\n" if not start else b"a"
        parser = requests(start)
        sent = 0
        while parser.feed(filler * 50):
            sent += 50 * len(filler)
            assert sent < 8 * LIMITS.headers
        assert isinstance(parser.fault, TooLarge)

    def test_endless_trailers_are_refused(self) -> None:
        parser = requests(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        for number in range(1000):
            if not parser.feed(b"X-%d: y\r\n" % number):
                break
        assert isinstance(parser.fault, TooLarge)

    def test_large_headers_before_a_large_body_are_no_part_of_it(self) -> None:
        body = random.Random(1).randbytes(100_000)
        head = HEAD + b"A: %b\r\nContent-Length: 100000\r\n\r\n" % (40_000 * b"x")
        data = head + body + HEAD + b"\r\n"
        for cut in (len(head) + 30_000, len(head) + 60_000):
            parser = requests(data[:cut], data[cut:], limits=Limits())
            assert [message.body for message in parser.inbox] == [body, b""]

    def test_a_slow_body_of_tiny_chunks_is_no_fault(self) -> None:
        parser = requests(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *bytewise(1000 * b"1\r\na\r\n" + b"0\r\n\r\n"))
        assert only(parser).body == 1000 * b"a"


class TestAnswers:
    def test_a_status_other_than_200_is_the_error_of_its_code(self) -> None:
        fault = responses(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nwhy\n").fault
        assert isinstance(fault, BadRequest)
        assert (fault.id, fault.detail) == ("pymicro.transport.http", "400 Bad Request: why")

    @pytest.mark.parametrize("status", [b"201 Created", b"204 No Content", b"302 Found", b"599 Odd"])
    def test_every_other_status_is_an_error(self, status: bytes) -> None:
        fault = responses(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status).fault
        assert isinstance(fault, Error)
        assert fault.code == int(status[:3])
        assert fault.detail == status.decode()

    def test_only_the_beginning_of_a_long_refusal_is_kept(self) -> None:
        segments = [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000000\r\n\r\n", b"x" * 700, b"x" * 700]
        fault = responses(*segments).fault
        assert isinstance(fault, Unavailable)
        assert len(fault.detail) == len("503 Service Unavailable: ") + 1024

    def test_a_refusal_without_length_ends_with_the_connection(self) -> None:
        parser = responses(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request", b" to an HTTPS server.\n")
        parser.end()
        fault = parser.fault
        assert isinstance(fault, BadRequest)
        assert fault.detail == "400 Bad Request: Client sent an HTTP request to an HTTPS server."

    def test_a_response_without_length_ends_with_the_connection(self) -> None:
        parser = responses(b"HTTP/1.1 200 OK\r\nMicro-Id: 1\r\n\r\nab", b"c")
        assert not parser.inbox
        parser.end()
        assert [message.body for message in parser.inbox] == [b"abc"]
        assert isinstance(parser.fault, Disconnected)

    def test_a_response_without_length_over_the_limit_is_too_large_when_it_ends_too(self) -> None:
        sound = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
        parser = responses(sound + b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001)
        parser.end()
        assert [message.body for message in parser.inbox] == [b"a"]
        assert isinstance(parser.fault, TooLarge)

    def test_interim_responses_are_passed_over(self) -> None:
        data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
        message = only(responses(*bytewise(data + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")))
        assert (dict(message.headers), message.body) == ({}, b"a")

    def test_switching_protocols_is_an_error(self) -> None:
        head = b"HTTP/1.1 101 Switching Protocols\r\n"
        for fields in (b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"):
            fault = responses(head + fields + b"\r\nbinary").fault
            assert isinstance(fault, Error)
            assert fault.code == 101

    @pytest.mark.parametrize(
        "cut", [b"HTTP/1", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"]
    )
    def test_a_message_that_is_cut_off_is_no_message(self, cut: bytes) -> None:
        parser = responses(cut)
        parser.end()
        assert not parser.inbox
        assert isinstance(parser.fault, Disconnected)
        assert "in the middle of a message" in parser.fault.detail
