"""Signs S3 requests step by step as AWS describes it, and not with the code under test."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from urllib.parse import quote

EMPTY_HASH = hashlib.sha256(b"").hexdigest()


def signed_headers(
    method: str,
    path: str,
    query: dict[str, str],
    headers: dict[str, str],
    *,
    key: str,
    secret: str,
    now: datetime,
) -> tuple[str, str, dict[str, str]]:
    """The raw path, the raw query, and all headers with the Authorization among them.

    `headers` holds everything that is signed, names in lower case: at least `host` and
    `x-amz-content-sha256`; the date is added.
    """
    sent = {**headers, "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}"}
    names = ";".join(sorted(sent))
    raw_path = quote(path, safe="/-_.~")
    encoded = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in query.items())
    raw_query = "&".join(f"{k}={v}" for k, v in encoded)
    lines = [f"{name}:{sent[name].strip()}" for name in sorted(sent)]
    canonical = "\n".join(
        [method, raw_path, raw_query, *lines, "", names, sent["x-amz-content-sha256"]]
    )
    scope = f"{now:%Y%m%d}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", sent["x-amz-date"], scope, digest])
    derived = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(derived, to_sign.encode(), hashlib.sha256).hexdigest()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return raw_path, raw_query, sent
