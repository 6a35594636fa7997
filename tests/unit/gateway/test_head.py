"""What is read as a request, and what is refused: one test for each way to be misread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.gateway.answers import Refusal
from kingpost.gateway.guard import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES
from kingpost.gateway.head import (
    RequestHead,
    RequestHeads,
    ResponseHead,
    ResponseHeads,
)


def parse_request(raw: bytes) -> RequestHead:
    head, length = RequestHeads().read(raw)
    head.length = length
    return head


def parse_response(raw: bytes) -> ResponseHead:
    head, length = ResponseHeads().read(raw)
    head.length = length
    return head


def request(*lines: bytes, first: bytes = b"POST /x HTTP/1.1") -> RequestHead:
    return parse_request(b"\r\n".join((first, b"Host: a", *lines)) + b"\r\n\r\n")


def refused(raw: bytes) -> int:
    with pytest.raises(Refusal) as caught:
        parse_request(raw)
    assert caught.value.close
    return caught.value.status


def test_a_plain_request() -> None:
    head = request(b"Content-Length: 3", b"X-A:  b ", b"Authorization: Api-Key k")
    assert (head.method, head.target, head.minor) == (b"POST", b"/x", 1)
    assert (head.length, head.chunked, head.keep_alive) == (3, False, True)
    assert head.authorization == b"Api-Key k"
    assert head.lines == [b"X-A:  b ", b"Authorization: Api-Key k"]


def test_two_hosts() -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n") == 400
    assert refused(b"GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n") == 400


def test_no_host() -> None:
    assert refused(b"GET / HTTP/1.1\r\n\r\n") == 400
    assert refused(b"GET / HTTP/1.1\r\nHost:\r\n\r\n") == 400


@pytest.mark.parametrize(
    "coding",
    [b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked", b"chunked,", b'"chunked"'],
)
def test_a_transfer_encoding_other_than_chunked(coding: bytes) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
    assert refused(raw) in {400, 501}


def test_chunked_twice() -> None:
    line = b"Transfer-Encoding: chunked\r\n"
    assert refused(b"POST / HTTP/1.1\r\nHost: a\r\n" + line * 2 + b"\r\n") in {400, 501}


def test_http_1_0_with_transfer_encoding() -> None:
    assert refused(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") == 400


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 3 3\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ],
)
def test_a_length_that_is_not_clear(lines: bytes) -> None:
    assert refused(b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n") == 400


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    ],
)
def test_a_bare_line_feed_or_carriage_return(raw: bytes) -> None:
    assert refused(raw) == 400


@pytest.mark.parametrize("fold", [b" b", b"\tb"])
def test_a_folded_line(fold: bytes) -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n" + fold + b"\r\n\r\n") == 400
    assert refused(b"GET / HTTP/1.1\r\n" + fold + b"\r\nHost: a\r\n\r\n") == 400


@pytest.mark.parametrize("name", [b"X ", b"X\t", b" X", b"", b"X(", b"X\x00", b"\xc3\xa9"])
def test_a_header_name_that_is_none(name: bytes) -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + name + b": b\r\n\r\n") == 400


@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\x7f", b"\x0b"])
def test_control_characters(byte: bytes) -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: a" + byte + b"\r\n\r\n") == 400
    assert refused(b"GET /a" + byte + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET /", 505),
        (b"GET / HTTP/1.2", 400),
        (b"GET / HTTP/3.0", 400),
        (b"NOPE / HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET / ICE/1.0", 400),
        (b"SOURCE / ICE/1.0", 505),
    ],
)
def test_a_request_line_that_is_none(line: bytes, status: int) -> None:
    assert refused(line + b"\r\nHost: a\r\n\r\n") == status


def test_the_http_2_preface() -> None:
    assert refused(b"PRI * HTTP/2.0\r\n\r\n") == 505


def test_limits() -> None:
    assert refused(b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 414
    large = b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n"
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + large + b"\r\n") == 431
    request(*[b"X: a"] * (MAX_HEADERS - 1))
    with pytest.raises(Refusal) as caught:
        request(*[b"X: a"] * MAX_HEADERS)
    assert caught.value.status == 431


def test_two_authorizations() -> None:
    line = b"Authorization: Api-Key k\r\n"
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + line * 2 + b"\r\n") == 400
    empty = b"Authorization:\r\n"
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + empty + line + b"\r\n") == 400


def test_connection_and_upgrade() -> None:
    assert not request(b"Connection: Close").keep_alive
    assert request(first=b"GET / HTTP/1.0").keep_alive is False
    assert request(b"Connection: keep-alive", first=b"GET / HTTP/1.0").keep_alive
    assert request(b"Connection: Upgrade", b"Upgrade: WebSocket").upgrade == b"websocket"
    assert request(b"Upgrade: websocket").upgrade == b""


def test_a_header_that_connection_names_stays_here() -> None:
    head = request(b"Connection: x-a, authorization", b"X-A: 1", b"Authorization: Api-Key k")
    assert head.lines == [b"Authorization: Api-Key k"]


tokens = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(str.encode)
values = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=0, max_size=20
).map(str.encode)


@given(st.lists(st.tuples(tokens.map(lambda name: b"x-q" + name), values), max_size=20))
def test_headers_are_forwarded_as_they_came(headers: list[tuple[bytes, bytes]]) -> None:
    head = request(*[b"%b: %b" % pair for pair in headers])
    assert head.lines == [b"%b: %b" % pair for pair in headers]


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_request_or_a_refusal(data: bytes) -> None:
    raw = data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    try:
        head = parse_request(raw)
    except Refusal:
        with pytest.raises(Refusal) as caught:
            parse_request(raw)
        assert caught.value.close
    else:
        assert raw.startswith(head.method + b" " + head.target + b" HTTP/1.")


@given(st.data())
def test_a_mutated_request_is_one_request_or_refused(data: st.DataObject) -> None:
    raw = bytearray(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: abc\r\n\r\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 5))
        raw[at] = data.draw(st.integers(0, 255))
    whole = bytes(raw)
    if whole.find(b"\r\n\r\n") != len(whole) - 4:
        return
    try:
        head = parse_request(whole)
    except Refusal:
        return
    framing = [line for line in whole.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    assert (head.length > 0) <= bool(framing)
    assert not any(b"\r" in line or b"\n" in line for line in head.lines)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\x00: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_answers_that_are_none(raw: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        parse_response(raw)


def test_a_plain_answer() -> None:
    head = parse_response(
        b"HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nX-A: b\r\nConnection: close\r\n\r\n"
    )
    assert (head.status, head.length, head.keep_alive) == (200, 3, False)
    assert head.block == b"HTTP/1.1 200 OK\r\nX-A: b\r\n"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    try:
        head = parse_response(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")
    except ValueError:
        return
    assert 100 <= head.status <= 599


heads = st.lists(
    st.sampled_from(
        [
            b"Content-Length: 1",
            b"content-length: 22",
            b"Content-length: 1",
            b"Content-Length:  1",
            b"Content-Length: x",
            b"Transfer-Encoding: chunked",
            b"X-A: 1",
            b" Content-Length: 1",
            b"X-Content-Length: 1",
        ]
    ),
    max_size=3,
)


@given(st.lists(heads, min_size=1, max_size=5))
def test_what_a_connection_keeps_of_its_last_head_changes_nothing(
    several: list[list[bytes]],
) -> None:
    """Each head is read as a fresh connection would read it, whatever came before."""
    kept, kept_answers = RequestHeads(), ResponseHeads()

    def request_verdict(reader: RequestHeads, raw: bytes) -> object:
        try:
            head, length = reader.read(raw)
        except Refusal as refusal:
            return refusal.status
        return head.lines, head.chunked, length

    def answer_verdict(reader: ResponseHeads, raw: bytes) -> object:
        try:
            head, length = reader.read(raw)
        except ValueError:
            return None
        return head.block, head.chunked, length

    for lines in several:
        raw = b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *lines]) + b"\r\n\r\n"
        verdict = request_verdict(kept, raw)
        assert verdict == request_verdict(RequestHeads(), raw)
        lengths = [line for line in lines if line.lower().startswith(b"content-length")]
        if len(lengths) > 1 or (lengths and b"Transfer-Encoding: chunked" in lines):
            assert isinstance(verdict, int)
        raw = b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) + b"\r\n\r\n"
        assert answer_verdict(kept_answers, raw) == answer_verdict(ResponseHeads(), raw)
