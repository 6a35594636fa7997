"""The chunked coding: the same for any split, canonical on the way out, strict."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.gateway.chunked import ChunkedBody

chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def canonical(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def feed_split(reader: ChunkedBody, data: bytes, cuts: list[int]) -> tuple[bytes, bool, bytes]:
    """Feed `data` cut at `cuts`; what comes after the end is given back whole."""
    points = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    out = b""
    for start, stop in pairwise(points):
        piece, done, rest = reader.feed(data[start:stop])
        out += piece
        if done:
            return out, True, rest + data[stop:]
    return out, False, b""


@given(chunks, st.binary(max_size=20), st.lists(st.integers(0, 1000), max_size=12))
def test_any_split_gives_the_same(parts: list[bytes], after: bytes, cuts: list[int]) -> None:
    data = canonical(parts)
    framed = ChunkedBody()
    assert feed_split(framed, data + after, cuts) == (data, True, after)
    assert framed.payload_bytes == sum(map(len, parts))
    plain = ChunkedBody(framed=False)
    assert feed_split(plain, data + after, cuts) == (b"".join(parts), True, after)


@given(chunks, st.lists(st.integers(0, 1000), max_size=12))
def test_extensions_and_trailers_are_dropped(parts: list[bytes], cuts: list[int]) -> None:
    wild = b"".join(b"%X ;a=b\r\n%b\r\n" % (len(part), part) for part in parts)
    wild += b"000;x\r\nAuthorization: Api-Key stolen\r\nX: y\r\n\r\n"
    assert feed_split(ChunkedBody(), wild, cuts) == (canonical(parts), True, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1\na\r\n",
        b"1\r\nab",
        b"1\r\na\n",
        b"1\r\na\rx",
        b"1\r\na\r\n\r\n",
        b"1;\x00\r\n",
        b"1;a\rb\r\n",
        b"f" * 16 + b"\r\n",
        b"1" * 5000,
        b"0\r\n" + b"a: b\r\n" * 5000,
        b"0\r\nX: y\n\r\n",
        b"1_0\r\n",
    ],
)
def test_wrong_coding(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"chunk|trailers"):
        ChunkedBody().feed(data)


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=6))
def test_arbitrary_bytes_give_the_same_verdict_for_any_split(data: bytes, cuts: list[int]) -> None:
    def verdict(cuts: list[int]) -> tuple[bytes, bool, bytes] | None:
        try:
            return feed_split(ChunkedBody(), data, cuts)
        except ValueError:
            return None

    assert verdict(cuts) == verdict([])
