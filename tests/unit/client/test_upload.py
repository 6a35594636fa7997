"""The signed PUT. Expected signatures were computed once with botocore 1.44."""

import hashlib
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from kingpost.client import upload
from kingpost.client.remote import Remote
from kingpost.client.upload import UploadTarget
from kingpost.errors import ForbiddenError, InvalidInputError, UnavailableError
from tests.support.restserver import Answer, rest_server

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
HELLO = hashlib.sha256(b"hello").hexdigest()
LOCAL = Remote("local", "http://localhost:8000")


def target(**changes: Any) -> UploadTarget:
    values: dict[str, Any] = {
        "bucket": "kingpost",
        "key": "up loads/a+b.tgz",
        "region": "us-east-1",
        "access_key_id": "AKIAEXAMPLE",
        "secret_access_key": "one-time-secret",
        "session_token": "one-time-token",
        "endpoint_url": "http://localhost:8000/s3",
    }
    return UploadTarget(**{**values, **changes})


def test_path_style_with_a_session_token() -> None:
    asked = target()
    assert asked.url == "http://localhost:8000/s3/kingpost/up%20loads/a%2Bb.tgz"
    assert upload.sign(asked, HELLO, NOW)["Authorization"].endswith(
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, "
        "Signature=d8227b01fb9bec53cce847c8d9e4b65d84d433f544a88f52d9b74d326e2080f6"
    )


def test_aws_itself_without_a_session_token() -> None:
    asked = target(
        bucket="bucket",
        key="org/key.tgz",
        region="eu-west-1",
        session_token=None,
        endpoint_url=None,
    )
    assert asked.url == "https://bucket.s3.eu-west-1.amazonaws.com/org/key.tgz"
    assert upload.sign(asked, HELLO, NOW)["Authorization"].endswith(
        "Signature=02198cc04b8ebca3f19889853728148a99e51a4ffcba1bf670d6239a72cd3323"
    )


def test_the_whole_file_arrives_and_progress_adds_up() -> None:
    data = b"x" * 700_000
    seen: list[int] = []
    with rest_server() as server:
        path = "/s3/kingpost/k.tgz"
        server.on("PUT", path, Answer(503), Answer())
        asked = target(key="k.tgz", endpoint_url=f"{server.url}/s3")
        digest = hashlib.sha256(data).hexdigest()
        upload.put(asked, io.BytesIO(data), digest, remote=LOCAL, on_bytes=seen.append)
        assert [r.body for r in server.asked("PUT", path)] == [data, data]
        assert server.requests[0].headers["x-amz-content-sha256"] == digest
    assert sum(seen) == len(data)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, InvalidInputError), (503, UnavailableError), (302, InvalidInputError)],
)
def test_a_refusal_is_told(status: int, kind: type[Exception]) -> None:
    body = b"<Error><Code>X</Code><Message>the signature is not ours</Message></Error>"
    with rest_server() as server:
        server.on("PUT", "/s3/kingpost/k.tgz", Answer(status, body, {"Location": "http://x/"}))
        asked = target(key="k.tgz", endpoint_url=f"{server.url}/s3")
        with pytest.raises(kind, match="the signature is not ours"):
            upload.put(asked, io.BytesIO(b"hello"), HELLO, remote=LOCAL)


def test_no_upload_in_clear_to_another_machine() -> None:
    with pytest.raises(ForbiddenError):
        upload.put(
            target(endpoint_url="http://10.9.8.7/s3"), io.BytesIO(b"hello"), HELLO, remote=LOCAL
        )


def test_an_answer_without_credentials() -> None:
    with pytest.raises(UnavailableError, match="s3_bucket"):
        UploadTarget.of({"s3_key": "x", "creds": {}})


def test_credentials_do_not_show() -> None:
    shown = repr(target())
    assert "one-time-secret" not in shown
    assert "one-time-token" not in shown
