"""The aws-chunked decoder: any split of the bytes gives the same data; anything else is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.api.s3.chunked import ChunkDecoder, ChunkError

TRAILER = b"x-amz-checksum-crc32:AAAAAA==\r\n"


def encode(chunks: list[bytes]) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return body + b"0\r\n" + TRAILER + b"\r\n"


def decode(pieces: list[bytes]) -> tuple[bytes, ChunkDecoder]:
    decoder = ChunkDecoder()
    return b"".join(data for piece in pieces for data in decoder.feed(piece)), decoder


@given(st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(0, 2000)))
def test_any_split_gives_the_same(chunks: list[bytes], cuts: list[int]) -> None:
    wire = encode(chunks)
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    pieces = [wire[a:b] for a, b in pairwise(edges)]
    data, decoder = decode(pieces)
    assert data == b"".join(chunks)
    assert decoder.complete
    assert decoder.trailers == {"x-amz-checksum-crc32": "AAAAAA=="}


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=3), st.data())
def test_a_body_cut_short_is_not_complete(chunks: list[bytes], data: st.DataObject) -> None:
    wire = encode(chunks)
    cut = data.draw(st.integers(0, len(wire) - 2))
    _, decoder = decode([wire[:cut]])
    assert not decoder.complete


@pytest.mark.parametrize(
    "wire",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"\r\n",
        b"0x5\r\nhello\r\n",
        b"11111111111111111\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"0\r\n\r\nmore",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n" + b"a:b\r\n" * 30 + b"\r\n",
        b"5" * 9000,
        b"5;" + b"x" * 9000 + b"\r\n",
    ],
)
def test_what_is_not_this_encoding(wire: bytes) -> None:
    with pytest.raises(ChunkError):
        decode([wire])


@given(st.binary(max_size=200))
def test_garbage_never_does_anything_else(wire: bytes) -> None:
    try:
        data, _ = decode([wire])
    except ChunkError:
        return
    assert len(data) <= len(wire)
