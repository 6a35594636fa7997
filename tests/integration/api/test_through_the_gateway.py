"""The doors as a client reaches them: through the gateway of a running platform, over TLS too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.awsrequest import AWSPreparedRequest

from tests.support import openapi
from tests.support.certificates import make_certificate
from tests.support.platform import RunningPlatform, platform

PAYLOAD = {"config": {"model_name": "by-hand"}}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    folder = tmp_path_factory.mktemp("secured")
    certificate, key = make_certificate(folder)
    options = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with platform(folder / "data", *options) as running:
        yield running


def prepared(running: RunningPlatform, name: str) -> dict[str, object]:
    path = "/v1/prepare_model_upload"
    answer = running.post(path, json={"name": name, "deployment": PAYLOAD})
    assert answer.status_code == 200, answer.text
    openapi.check("POST", path, answer.json())
    given: dict[str, object] = answer.json()
    return given


@pytest.mark.parametrize("size", [1000, 9 * 1024 * 1024])
def test_an_upload_over_tls(secured: RunningPlatform, tmp_path: Path, size: int) -> None:
    """Over TLS, boto3 sends bodies in aws-chunked form, with the checksum behind them."""
    given = prepared(secured, f"up-{size}")
    assert given["endpoint_url"] == f"{secured.address}/s3"
    content = os.urandom(size)
    file = tmp_path / "archive"
    file.write_bytes(content)
    client = boto3.client(
        "s3",
        **given["creds"],  # type: ignore[arg-type]
        region_name=str(given["s3_region"]),
        endpoint_url=str(given["endpoint_url"]),
        verify=secured.certificate,
    )
    hashes: set[str | bytes] = set()

    def note(request: AWSPreparedRequest, **_: object) -> None:
        if request.method == "PUT":
            hashes.add(request.headers["X-Amz-Content-SHA256"])

    client.meta.events.register("before-send.s3", note)
    client.upload_file(str(file), str(given["s3_bucket"]), str(given["s3_key"]))
    assert hashes == {b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
    digest = hashlib.sha256(content).hexdigest()
    assert (secured.data / "archives" / f"{digest}.tar").read_bytes() == content


def test_answers_name_the_address_that_was_asked(secured: RunningPlatform) -> None:
    query = {"query": "{ model_s3_upload_credentials { s3_key } }"}
    for host, expected in (
        (f"localhost:{secured.port}", f"https://localhost:{secured.port}/s3"),
        (f"api.localhost:{secured.port}", f"https://localhost:{secured.port}/s3"),
    ):
        answer = httpx.post(
            f"{secured.address}/graphql/",
            json=query,
            headers={**secured.headers, "Host": host, "X-Kingpost-Authority": "evil.example"},
            verify=secured.trust,
        )
        given = answer.json()["data"]["model_s3_upload_credentials"]
        assert given["endpoint_url"] == expected


def test_pages_come_with_their_files(secured: RunningPlatform) -> None:
    for path in ("/", "/models/abc12345/logs/dep00001"):
        page = httpx.get(secured.address + path, verify=secured.trust)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
    script = httpx.get(f"{secured.address}/static/logs.js", verify=secured.trust)
    assert script.headers["content-type"].startswith("text/javascript")


def test_an_archive_larger_than_a_body_may_be_is_refused_early(secured: RunningPlatform) -> None:
    answer = secured.post("/v1/secrets", content=b" " * 10_000_001)
    assert answer.status_code == 413
    assert answer.json()["code"] == "PAYLOAD_TOO_LARGE"
