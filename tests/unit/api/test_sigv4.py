"""Signatures: an independent signer agrees, and any change to what was signed is noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kingpost.api.s3 import sigv4
from kingpost.api.s3.errors import S3Error
from tests.support.sigv4_signer import EMPTY_HASH, signed_headers

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
KEY, SECRET, TOKEN = "KPEXAMPLE", "a secret", "a token"
text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


def sign(
    path: str,
    query: dict[str, str],
    *,
    headers: dict[str, str] | None = None,
    when: datetime = NOW,
    token: str = TOKEN,
) -> sigv4.SignedRequest:
    fixed = {
        "host": "localhost:8000",
        "x-amz-content-sha256": EMPTY_HASH,
        "x-amz-security-token": token,
    }
    raw_path, raw_query, sent = signed_headers(
        "PUT", path, query, {**fixed, **(headers or {})}, key=KEY, secret=SECRET, now=when
    )
    wire = [(name.encode(), value.encode()) for name, value in sent.items()]
    return sigv4.SignedRequest("PUT", raw_path.encode(), raw_query.encode(), wire)


def verify(request: sigv4.SignedRequest, now: datetime = NOW) -> None:
    authorization = sigv4.parse_authorization(request.header("authorization"))
    assert authorization.access_key_id == KEY
    sigv4.verify(request, authorization, secret=SECRET, session_token=TOKEN, now=now)


@given(st.lists(text.filter(bool), min_size=1), st.dictionaries(text.filter(bool), text))
def test_what_was_signed_is_accepted(parts: list[str], query: dict[str, str]) -> None:
    verify(sign("/s3/" + "/".join(parts), query))


@given(st.integers(0, 10), st.binary(min_size=1, max_size=8))
def test_any_change_is_noticed(which: int, junk: bytes) -> None:
    request = sign("/s3/bucket/key", {"partNumber": "1", "uploadId": "u"})
    headers = list(request.headers)
    changed = {
        0: ("PATCH", request.raw_path, request.raw_query, headers),
        1: ("PUT", request.raw_path + b"x", request.raw_query, headers),
        2: ("PUT", request.raw_path, request.raw_query + b"&x=1", headers),
        3: ("PUT", request.raw_path, b"", headers),
    }.get(which)
    if changed is None:
        index = which % len(headers)
        name, value = headers[index]
        assume(value.strip() != junk.strip())
        headers[index] = (name, junk)
        changed = ("PUT", request.raw_path, request.raw_query, headers)
    with pytest.raises(S3Error) as caught:
        verify(sigv4.SignedRequest(*changed))
    assert caught.value.status in {400, 403}


@given(st.integers(-10_000, 10_000))
def test_the_clock_may_differ_by_15_minutes(seconds: int) -> None:
    request = sign("/s3/b/k", {}, when=NOW + timedelta(seconds=seconds))
    if abs(seconds) <= 900:
        verify(request)
    else:
        with pytest.raises(S3Error, match="clock"):
            verify(request)


def test_what_decides_must_be_signed() -> None:
    request = sign("/s3/b/k", {})
    extra = (*request.headers, (b"x-amz-checksum-crc32", b"AAAAAA=="))
    with pytest.raises(S3Error, match="must be signed"):
        verify(sigv4.SignedRequest("PUT", request.raw_path, request.raw_query, extra))
    twice = (*request.headers, (b"host", b"elsewhere"))
    with pytest.raises(S3Error, match="must be signed"):
        verify(sigv4.SignedRequest("PUT", request.raw_path, request.raw_query, twice))
    with pytest.raises(S3Error, match="session token"):
        verify(sign("/s3/b/k", {}, token="another"))


@given(st.text())
def test_headers_that_are_no_signature(header: str) -> None:
    with pytest.raises(S3Error):
        sigv4.parse_authorization(header)
