"""The upload endpoint: what it takes, what it refuses and how it says so, and what it leaves."""

from __future__ import annotations

import base64
import errno
import hashlib
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.api.s3 import endpoint as s3_endpoint
from kingpost.api.s3 import receive as s3_receive
from kingpost.api.s3.errors import S3Error
from kingpost.api.s3.parts import parse_part_list, parse_part_number
from kingpost.control.domain import Upload, utc_now
from kingpost.settings import Limits
from tests.support.platform_app import AUTHORITY, BASE_URL, World, make_world
from tests.support.sigv4_signer import signed_headers

LIMIT_BYTES = 1000


class Uploader:
    """An S3 client that can also do what a good one never does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.upload = world.platform.uploads.begin(world.team_id)

    async def send(
        self,
        method: str = "PUT",
        body: bytes = b"",
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body_hash: str | None = None,
        key: str | None = None,
        sent: bytes | None = None,
        skew: timedelta = timedelta(0),
    ) -> httpx.Response:
        raw_path, raw_query, signed = signed_headers(
            method,
            f"/s3/{self.upload.bucket}/{key or self.upload.key}",
            query or {},
            {
                "host": AUTHORITY,
                "x-amz-content-sha256": body_hash or hashlib.sha256(body).hexdigest(),
                "x-amz-security-token": self.upload.session_token,
                **(headers or {}),
            },
            key=self.upload.access_key_id,
            secret=self.upload.secret_access_key,
            now=utc_now() + skew,
        )
        transport = httpx.ASGITransport(app=self.world.app)
        async with httpx.AsyncClient(transport=transport) as client:
            url = f"{BASE_URL}{raw_path}" + (f"?{raw_query}" if raw_query else "")
            return await client.request(
                method, url, headers=signed, content=body if sent is None else sent
            )

    def stored(self) -> Upload:
        found = self.world.platform.uploads.by_access_key(self.upload.access_key_id)
        assert found is not None
        return found

    def left(self) -> list[str]:
        folder = self.world.platform.uploads.folder(self.upload)
        return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = make_world(tmp_path, limits=Limits(max_archive_bytes=LIMIT_BYTES))
    yield made
    made.store.close()


@pytest.fixture
def uploader(world: World) -> Uploader:
    return Uploader(world)


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/xml")
    assert f"<Code>{code}</Code>" in response.text
    assert "/uploads/" not in response.text
    return response.text


async def test_one_object_at_once(uploader: Uploader) -> None:
    crc = base64.b64encode(zlib.crc32(b"archive").to_bytes(4, "big")).decode()
    response = await uploader.send(body=b"archive", headers={"x-amz-checksum-crc32": crc})
    assert response.status_code == 200
    etag = hashlib.md5(b"archive").hexdigest()
    assert response.headers["etag"] == f'"{etag}"'
    assert uploader.stored().size_bytes == 7
    assert uploader.left() == ["etag"]
    head = await uploader.send("HEAD")
    assert (head.headers["content-length"], head.headers["etag"]) == ("7", f'"{etag}"')
    again = await uploader.send(body=b"archive")
    assert again.headers["etag"] == f'"{etag}"'
    refused(await uploader.send(body=b"another"), 403, "AccessDenied")


async def test_nothing_of_a_bad_body_stays(uploader: Uploader) -> None:
    wrong = {"x-amz-checksum-crc32": "AAAAAA=="}
    refused(await uploader.send(body=b"archive", headers=wrong), 400, "BadDigest")
    other = hashlib.sha256(b"other").hexdigest()
    response = await uploader.send(body=b"archive", body_hash=other)
    refused(response, 400, "XAmzContentSHA256Mismatch")
    for announced in ("6", "8"):
        response = await uploader.send(body=b"archive", headers={"content-length": announced})
        refused(response, 400, "IncompleteBody")
    assert uploader.left() == []
    assert uploader.stored().digest is None
    assert (await uploader.send("HEAD")).status_code == 404


async def test_limits(uploader: Uploader) -> None:
    refused(await uploader.send(body=b"x" * (LIMIT_BYTES + 1)), 413, "EntityTooLarge")
    begun = await uploader.send("POST", query={"uploads": ""})
    upload_id = begun.text.partition("<UploadId>")[2].partition("<")[0]
    part = {"uploadId": upload_id}
    first = await uploader.send(body=b"x" * 600, query={**part, "partNumber": "1"})
    assert first.status_code == 200
    second = await uploader.send(body=b"x" * 401, query={**part, "partNumber": "2"})
    refused(second, 413, "EntityTooLarge")
    assert uploader.stored().digest is None


async def test_a_multipart_upload(uploader: Uploader) -> None:
    begun = await uploader.send("POST", query={"uploads": ""})
    upload_id = begun.text.partition("<UploadId>")[2].partition("<")[0]
    part = {"uploadId": upload_id}
    etags = []
    for number, body in ((2, b"two"), (1, b"lost"), (1, b"one"), (10, b"ten"), (3, b"unused")):
        sent = await uploader.send(body=body, query={**part, "partNumber": str(number)})
        etags.append((number, sent.headers["etag"]))
    assert len(uploader.left()) == 4
    named = dict(etags)

    def listing(*numbers: int) -> bytes:
        parts = "".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>{named[n]}</ETag></Part>" for n in numbers
        )
        return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()

    async def complete(body: bytes) -> httpx.Response:
        return await uploader.send("POST", body, query=part)

    refused(await complete(listing(2, 1)), 400, "InvalidPartOrder")
    refused(await complete(listing(1).replace(b'"', b"&quot;0")), 400, "InvalidPart")
    refused(await complete(b"<!DOCTYPE x><a/>"), 400, "MalformedXML")
    refused(await complete(b"no xml"), 400, "MalformedXML")
    done = await complete(listing(1, 2, 10).replace(b'"', b"&quot;"))
    assert done.status_code == 200
    sums = b"".join(hashlib.md5(b).digest() for b in (b"one", b"two", b"ten"))
    assert f"{hashlib.md5(sums).hexdigest()}-3" in done.text
    digest = uploader.stored().digest
    assert digest == hashlib.sha256(b"onetwoten").hexdigest()
    assert uploader.world.platform.uploads.archive(digest).read_bytes() == b"onetwoten"
    assert uploader.left() == ["etag"]
    assert (await complete(listing(1, 2, 10))).text == done.text
    late = await uploader.send(body=b"late", query={**part, "partNumber": "4"})
    refused(late, 403, "AccessDenied")


async def test_a_multipart_upload_is_given_up(uploader: Uploader) -> None:
    begun = await uploader.send("POST", query={"uploads": ""})
    upload_id = begun.text.partition("<UploadId>")[2].partition("<")[0]
    part = {"uploadId": upload_id}
    await uploader.send(body=b"one", query={**part, "partNumber": "1"})
    assert (await uploader.send("DELETE", query=part)).status_code == 204
    assert uploader.left() == []
    for wrong in (upload_id, "../../../etc", "x" * 32, ""):
        response = await uploader.send(body=b"one", query={"uploadId": wrong, "partNumber": "1"})
        refused(response, 404, "NoSuchUpload")


async def test_chunked_bodies_with_a_trailer(uploader: Uploader) -> None:
    data = b"archive" * 100
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big"))
    wire = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (len(data), data, crc)
    chunked: dict[str, Any] = {
        "headers": {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(len(data)),
        },
        "body_hash": s3_receive.UNSIGNED_TRAILER,
    }
    wrong = wire.replace(crc, b"AAAAAA==")
    refused(await uploader.send(body=b"", sent=wrong, **chunked), 400, "BadDigest")
    refused(await uploader.send(body=b"", sent=wire[:-30], **chunked), 400, "IncompleteBody")
    refused(await uploader.send(body=b"", sent=b"zz" + wire, **chunked), 400, "InvalidRequest")
    assert (await uploader.send(body=b"", sent=wire, **chunked)).status_code == 200
    assert uploader.stored().digest == hashlib.sha256(data).hexdigest()


async def test_a_way_of_signing_that_is_not_known(uploader: Uploader) -> None:
    response = await uploader.send(body=b"x", body_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    refused(response, 501, "NotImplemented")
    refused(await uploader.send("GET"), 405, "MethodNotAllowed")


async def test_credentials_expire_and_are_for_one_key(uploader: Uploader) -> None:
    refused(await uploader.send(body=b"x", key="trusses/other.tgz"), 403, "AccessDenied")
    refused(await uploader.send(body=b"x", skew=timedelta(minutes=20)), 403, "RequestTimeTooSkewed")
    with uploader.world.store.begin() as tx:
        row = tx.uploads.get(key=uploader.upload.key)
        assert row is not None
        past = utc_now() - timedelta(seconds=1)
        tx.uploads.put(msgspec.structs.replace(row, expires_at=past))
    refused(await uploader.send(body=b"x"), 403, "ExpiredToken")


async def test_a_request_without_a_signature(world: World, uploader: Uploader) -> None:
    async with world.client() as client:
        response = await client.put(f"/s3/{uploader.upload.bucket}/{uploader.upload.key}")
        refused(response, 400, "AuthorizationHeaderMalformed")
        response = await client.put(
            f"/s3/{uploader.upload.bucket}/{uploader.upload.key}", headers={"Authorization": ""}
        )
        refused(response, 403, "AccessDenied")


@pytest.mark.parametrize("at", ["write", "finish"])
async def test_a_full_disk_registers_nothing(
    uploader: Uploader, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/uploads/secret-place")

    place = (s3_receive._Sink, "write") if at == "write" else (s3_endpoint._Endpoint, "_take")
    with monkeypatch.context() as patched:
        patched.setattr(*place, full)
        response = await uploader.send(body=b"archive")
    assert "secret-place" not in refused(response, 507, "STORAGE_FULL")
    assert uploader.stored().digest is None
    assert uploader.left() == []
    assert (await uploader.send(body=b"archive")).status_code == 200


@given(st.integers(1, 10_000))
def test_part_numbers(number: int) -> None:
    assert parse_part_number(str(number)) == number


@given(st.text(max_size=12).filter(lambda t: not (t.isdecimal() and 1 <= int(t) <= 10_000)))
def test_what_is_no_part_number(text: str) -> None:
    with pytest.raises(S3Error, match="partNumber"):
        parse_part_number(text)


@given(st.binary(max_size=200))
def test_part_lists_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(S3Error):
        parse_part_list(body)
