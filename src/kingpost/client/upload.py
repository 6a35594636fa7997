"""Puts one file into S3-compatible storage: one PUT, signed with one-time credentials (SigV4)."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlsplit

import httpx

from kingpost.client.archive import OnBytes
from kingpost.client.remote import Remote, is_loopback
from kingpost.client.rest import http_client
from kingpost.errors import ForbiddenError, InvalidInputError, TooLargeError, UnavailableError

MAX_PUT_BYTES: Final = 5 * 1024**3
ATTEMPTS: Final = 3
_CHUNK_BYTES: Final = 256 * 1024
_TIMEOUT: Final = httpx.Timeout(connect=10.0, read=300.0, write=60.0, pool=10.0)


@dataclass(frozen=True)
class UploadTarget:
    """Where to put an archive. `endpoint_url` is None for AWS itself."""

    bucket: str
    key: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> UploadTarget:
        """From the answer of `POST /v1/prepare_model_upload`."""
        creds = answer.get("creds") or {}
        try:
            return cls(
                bucket=str(answer["s3_bucket"]),
                key=str(answer["s3_key"]),
                region=answer.get("s3_region") or "us-east-1",
                access_key_id=str(creds["aws_access_key_id"]),
                secret_access_key=str(creds["aws_secret_access_key"]),
                session_token=creds.get("aws_session_token") or None,
                endpoint_url=answer.get("endpoint_url") or creds.get("endpoint_url"),
            )
        except KeyError as error:
            raise UnavailableError(
                f"The platform gave no place to upload to: {error.args[0]} is missing."
            ) from None

    @property
    def url(self) -> str:
        path = quote(self.key, safe="/-_.~")
        if self.endpoint_url is not None:
            return f"{self.endpoint_url.rstrip('/')}/{quote(self.bucket, safe='-_.~')}/{path}"
        if "." in self.bucket:
            return f"https://s3.{self.region}.amazonaws.com/{self.bucket}/{path}"
        return f"https://{self.bucket}.s3.{self.region}.amazonaws.com/{path}"


def put(
    target: UploadTarget,
    file: BinaryIO,
    sha256: str,
    *,
    remote: Remote,
    on_bytes: OnBytes | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Upload a whole file. The PUT is repeated when the connection breaks: it has the same effect.

    `on_bytes` gets negative numbers when an attempt starts over.
    """
    size = file.seek(0, os.SEEK_END)
    if size > MAX_PUT_BYTES:
        raise TooLargeError(
            f"The archive has {size} bytes; at most {MAX_PUT_BYTES} can be pushed. Leave large "
            "files out with .truss_ignore and load them as `weights:` or `external_data`."
        )
    if target.url.startswith("http:") and not is_loopback(target.url) and not remote.insecure:
        raise ForbiddenError("The platform asked for an unencrypted upload to another machine.")
    keyless = Remote(remote.name, _origin(target.url), ca_file=remote.ca_file)
    report = on_bytes or (lambda _: None)
    with http_client(keyless, _TIMEOUT) as http:
        for attempt in range(1, ATTEMPTS + 1):
            sent = _Sent(report)
            headers = {**sign(target, sha256, now()), "Content-Length": str(size)}
            try:
                response = http.put(target.url, content=_chunks(file, sent), headers=headers)
            except httpx.HTTPError as error:
                sent.take_back()
                if attempt == ATTEMPTS:
                    reason = str(error) or type(error).__name__
                    raise UnavailableError(
                        f"The upload broke off: {reason}. Push again."
                    ) from error
                continue
            if response.status_code < 500 or attempt == ATTEMPTS:
                _check(response)
                return
            sent.take_back()


def sign(target: UploadTarget, sha256: str, now: datetime) -> dict[str, str]:
    """Headers of a signed PUT of a body with that SHA-256 (AWS documentation: SigV4 for S3)."""
    parts = urlsplit(target.url)
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "host": parts.netloc,
        "x-amz-content-sha256": sha256,
        "x-amz-date": stamp,
    }
    if target.session_token:
        headers["x-amz-security-token"] = target.session_token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"PUT\n{parts.path}\n\n{lines}\n{names}\n{sha256}"
    scope = f"{stamp[:8]}/{target.region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = f"AWS4{target.secret_access_key}".encode()
    for part in (stamp[:8], target.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={target.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    text = response.text
    message = text.partition("<Message>")[2].partition("</Message>")[0] or text[:200].strip()
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if response.status_code >= 500:
        raise UnavailableError(f"The upload was answered with {status}: {message}")
    raise InvalidInputError(f"The upload was refused with {status}: {message}")


def _chunks(file: BinaryIO, sent: _Sent) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
        sent.add(len(chunk))


class _Sent:
    def __init__(self, report: OnBytes) -> None:
        self._report = report
        self._bytes = 0

    def add(self, size: int) -> None:
        self._bytes += size
        self._report(size)

    def take_back(self) -> None:
        self._report(-self._bytes)
        self._bytes = 0


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
