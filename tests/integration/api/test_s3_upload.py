"""Uploads with the real boto3, over HTTP, with the credentials that a push is given."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions
import httpx
import pytest
from boto3.s3.transfer import TransferConfig

from kingpost.control.domain import Upload
from kingpost.settings import Limits
from tests.support.platform_app import World, make_world
from tests.support.serving import served

LIMIT_BYTES = 24 * 1024 * 1024


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path, limits=Limits(max_archive_bytes=LIMIT_BYTES))
    yield made
    made.store.close()


@pytest.fixture
async def address(world: World) -> AsyncIterator[str]:
    async with served(world.app) as url:
        yield url


async def credentials(world: World, address: str) -> dict[str, str]:
    query = "{ model_s3_upload_credentials { s3_bucket s3_key aws_access_key_id "
    query += "aws_secret_access_key aws_session_token } }"
    async with httpx.AsyncClient(headers=world.auth()) as client:
        answer = await client.post(f"{address}/graphql/", json={"query": query})
    got: dict[str, str] = answer.json()["data"]["model_s3_upload_credentials"]
    assert got["endpoint_url"] == f"{address}/s3"
    return got


def send(given: dict[str, str], file: Path) -> None:
    """As the truss CLI does it: the reply's other fields are arguments of boto3."""
    rest = {k: v for k, v in given.items() if k not in {"s3_bucket", "s3_key"}}
    resource = boto3.resource(
        "s3",
        **rest,
        config=botocore.config.Config(retries={"total_max_attempts": 2}),
    )
    resource.Object(given["s3_bucket"], given["s3_key"]).upload_file(
        str(file), Config=TransferConfig(max_concurrency=10, use_threads=True)
    )


def upload_of(world: World, given: dict[str, str]) -> Upload:
    found = world.platform.uploads.by_access_key(given["aws_access_key_id"])
    assert found is not None
    return found


@pytest.mark.parametrize("size", [0, 10_240, 20 * 1024 * 1024 + 7])
async def test_an_archive_arrives_whole(
    world: World, address: str, tmp_path: Path, size: int
) -> None:
    given = await credentials(world, address)
    file = tmp_path / "model.tgz"
    content = os.urandom(size)
    file.write_bytes(content)
    await asyncio.to_thread(send, given, file)
    digest = world.platform.uploads.archive_of(world.team_id, given["s3_key"])
    assert digest == hashlib.sha256(content).hexdigest()
    assert world.platform.uploads.archive(digest).read_bytes() == content
    left = world.platform.uploads.folder(upload_of(world, given))
    assert [f.name for f in left.iterdir()] == ["etag"]


async def test_credentials_are_good_once(world: World, address: str, tmp_path: Path) -> None:
    given = await credentials(world, address)
    file = tmp_path / "model.tgz"
    file.write_bytes(b"first")
    await asyncio.to_thread(send, given, file)
    await asyncio.to_thread(send, given, file)  # the same again, as after a lost answer
    file.write_bytes(b"second")
    with pytest.raises(boto3.exceptions.S3UploadFailedError, match="used already"):
        await asyncio.to_thread(send, given, file)
    digest = world.platform.uploads.archive_of(world.team_id, given["s3_key"])
    assert digest == hashlib.sha256(b"first").hexdigest()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("aws_secret_access_key", "wrong", "SignatureDoesNotMatch"),
        ("aws_access_key_id", "KPNOBODY", "InvalidAccessKeyId"),
        ("aws_session_token", "wrong", "InvalidToken"),
        ("s3_key", "trusses/other.tgz", "AccessDenied"),
        ("s3_bucket", "other-bucket", "AccessDenied"),
    ],
)
async def test_wrong_credentials(
    world: World, address: str, tmp_path: Path, field: str, value: str, says: str
) -> None:
    given = await credentials(world, address)
    file = tmp_path / "model.tgz"
    file.write_bytes(b"content")
    with pytest.raises(boto3.exceptions.S3UploadFailedError, match=says):
        await asyncio.to_thread(send, {**given, field: value}, file)
    assert upload_of(world, given).digest is None


@pytest.mark.parametrize("size", [LIMIT_BYTES + 1, LIMIT_BYTES + 9 * 1024 * 1024])
async def test_too_large(world: World, address: str, tmp_path: Path, size: int) -> None:
    given = await credentials(world, address)
    file = tmp_path / "model.tgz"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    with pytest.raises(boto3.exceptions.S3UploadFailedError, match="EntityTooLarge"):
        await asyncio.to_thread(send, given, file)
    assert upload_of(world, given).digest is None
