"""AWS Signature Version 4 in headers, checked for one known key. Pure: no clock, no store.

Source of the rules: AWS General Reference, signing of S3 requests (the path is not encoded again).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from kingpost.api.s3.errors import denied, invalid

ALGORITHM: Final = "AWS4-HMAC-SHA256"
MAX_SKEW: Final = timedelta(minutes=15)
_MUST_BE_SIGNED: Final = frozenset({"host", "x-amz-date", "x-amz-content-sha256"})
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<key>[^/,\s]+)/(?P<date>\d{8})/(?P<region>[^/,\s]+)/"
    r"(?P<service>[^/,\s]+)/aws4_request\s*,\s*SignedHeaders=(?P<headers>[^,\s]+)\s*,\s*"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_SPACES = re.compile(r"[ \t]+")

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Authorization:
    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True)
class SignedRequest:
    """A request as it came over the wire: nothing decoded, headers in lower case."""

    method: str
    raw_path: bytes
    raw_query: bytes
    headers: Headers

    def header(self, name: str) -> str | None:
        """The values of a header, joined as the signature joins them; None without one."""
        wanted = name.encode()
        values = [
            _SPACES.sub(" ", value.decode("latin-1").strip())
            for key, value in self.headers
            if key == wanted
        ]
        return ",".join(values) if values else None


def parse_authorization(header: str | None) -> Authorization:
    """Raises S3Error when the header is missing or of another kind."""
    if not header:
        raise denied("The request is not signed. Use the credentials that came with the key.")
    found = _AUTHORIZATION.fullmatch(header.strip())
    if found is None:
        raise invalid(
            f"The Authorization header can't be read; expected one of the form {ALGORITHM} "
            "Credential=..., SignedHeaders=..., Signature=....",
            "AuthorizationHeaderMalformed",
        )
    return Authorization(
        access_key_id=found["key"],
        date=found["date"],
        region=found["region"],
        service=found["service"],
        signed_headers=tuple(found["headers"].split(";")),
        signature=found["signature"],
    )


def verify(
    request: SignedRequest,
    authorization: Authorization,
    *,
    secret: str,
    session_token: str,
    now: datetime,
) -> None:
    """Raises S3Error unless the request was signed with these credentials just now."""
    stamp = _timestamp(request.header("x-amz-date"))
    if abs(now - stamp) > MAX_SKEW:
        raise denied(
            "The request's time differs from the server's by more than 15 minutes. "
            "Set the clock of one of the machines.",
            "RequestTimeTooSkewed",
        )
    if authorization.date != f"{stamp:%Y%m%d}" or authorization.service != "s3":
        raise invalid(
            "The credential's scope does not fit the request.", "AuthorizationHeaderMalformed"
        )
    _check_signed_headers(request, authorization)
    expected = signature(request, authorization, secret)
    signed = hmac.compare_digest(expected, authorization.signature)
    token = request.header("x-amz-security-token") or ""
    if not hmac.compare_digest(token.encode("latin-1"), session_token.encode()):
        raise denied("The session token is not the one of this upload.", "InvalidToken")
    if not signed:
        raise denied(
            "The signature does not fit the request. Check the secret key, and that nothing on "
            "the way changes the path, the query or the Host.",
            "SignatureDoesNotMatch",
        )


def signature(request: SignedRequest, authorization: Authorization, secret: str) -> str:
    """The hex signature that the request should carry."""
    to_sign = "\n".join(
        (
            ALGORITHM,
            request.header("x-amz-date") or "",
            authorization.scope,
            hashlib.sha256(canonical_request(request, authorization.signed_headers)).hexdigest(),
        )
    )
    key = f"AWS4{secret}".encode()
    for part in (authorization.date, authorization.region, authorization.service, "aws4_request"):
        key = _hmac(key, part)
    return _hmac(key, to_sign).hex()


def canonical_request(request: SignedRequest, signed_headers: Iterable[str]) -> bytes:
    names = tuple(signed_headers)
    lines = [
        request.method,
        request.raw_path.decode("latin-1") or "/",
        canonical_query(request.raw_query),
        *(f"{name}:{request.header(name) or ''}" for name in names),
        "",
        ";".join(names),
        request.header("x-amz-content-sha256") or "",
    ]
    return "\n".join(lines).encode("latin-1")


def canonical_query(raw_query: bytes) -> str:
    pairs = []
    for part in raw_query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((_encode(name), _encode(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _check_signed_headers(request: SignedRequest, authorization: Authorization) -> None:
    """What decides on the outcome must be signed: Host, date, body hash and every `x-amz-*`."""
    signed = set(authorization.signed_headers)
    present = {name.decode("latin-1") for name, _ in request.headers}
    unsigned = {n for n in present if n.startswith("x-amz-")} | _MUST_BE_SIGNED
    missing = sorted(unsigned - signed)
    counts: defaultdict[bytes, int] = defaultdict(int)
    for name, _ in request.headers:
        counts[name] += 1
    if missing or any(counts[name.encode()] > 1 for name in _MUST_BE_SIGNED):
        raise denied(
            f"These headers must be signed, and be there once: {', '.join(missing) or 'host'}.",
        )


def _timestamp(text: str | None) -> datetime:
    try:
        return datetime.strptime(text or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise denied("The request needs an x-amz-date header such as 20260131T235900Z.") from error


def _encode(part: bytes) -> str:
    return quote(unquote_to_bytes(part), safe="-_.~")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("latin-1"), hashlib.sha256).digest()
