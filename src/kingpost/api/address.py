"""The address that a client used, so that answers can name URLs that work for that client."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import HTTPConnection

from kingpost.settings import Settings

SCHEME_HEADER: Final = "x-forwarded-proto"
AUTHORITY_HEADER: Final = "x-kingpost-authority"
_AUTHORITY = re.compile(r"(?:[0-9a-zA-Z\-._]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?")


def base_url(connection: HTTPConnection, settings: Settings) -> str:
    """`scheme://authority`, from what the gateway says, else from Host without its `api.`."""
    headers = connection.headers
    scheme = headers.get(SCHEME_HEADER) or connection.scope.get("scheme", "http")
    authority = headers.get(AUTHORITY_HEADER) or headers.get("host", "").removeprefix("api.")
    if scheme not in {"http", "https"} or not _AUTHORITY.fullmatch(authority):
        return settings.address
    return f"{scheme}://{authority}"


def model_url(base: str, model_id: str) -> str:
    """A model's `hostname` in the contract; clients append `/deployment/...` and the like."""
    return f"{base}/model/{model_id}"


def upload_url(base: str) -> str:
    """The endpoint that an S3 client is given."""
    return f"{base}/s3"
