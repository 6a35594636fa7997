"""Lists what a weights source holds: a Hugging Face repository, an S3 prefix, one HTTPS file."""

from __future__ import annotations

import datetime as dt
import fnmatch
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

from kingpost.build.config import WeightsSource
from kingpost.build.fetch import Expected, Fetcher, FetchError, shown_url
from kingpost.errors import BuildFailedError

DEFAULT_HUB = "https://huggingface.co"
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True)
class RemoteFile:
    """`path` is relative and inside; `headers` open it and are never shown or kept."""

    path: str
    url: str
    expected: Expected = field(default_factory=Expected)
    etag: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Listing:
    """`version` changes when the content does."""

    version: str
    files: tuple[RemoteFile, ...]


async def list_source(source: WeightsSource, secret: str | None, fetcher: Fetcher) -> Listing:
    """What there is, after the patterns. Raises `BuildFailedError` in words for the log."""
    scheme = source.source.split("://", 1)[0]
    if source.auth_method is not None:
        raise BuildFailedError(
            f"weights {source.source}: auth_method {source.auth_method} needs Baseten's cloud "
            "identities. Use a secret: auth_method CUSTOM_SECRET with auth_secret_name."
        )
    listers = {"hf": _hugging_face, "s3": _s3, "https": _https, "http": _https}
    lister = listers.get(scheme)
    if lister is None:
        raise BuildFailedError(
            f"weights {source.source}: {scheme}:// is not supported here. Use hf://, s3:// or https://."
        )
    try:
        listing = await lister(source, secret, fetcher)
    except FetchError as error:
        raise _explained(error, source, secret) from error
    files = tuple(file for file in listing.files if _wanted(file.path, source))
    for file in files:
        check_path(file.path, source.source)
    if not files:
        raise BuildFailedError(
            f"weights {source.source}: no file is left after allow_patterns and ignore_patterns."
        )
    return Listing(listing.version, files)


def check_path(path: str, source: str) -> None:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise BuildFailedError(f"weights {source}: the file name {path[:80]!r} leads outside.")


def matches(path: str, patterns: Iterable[str]) -> bool:
    """As the Hugging Face library: shell patterns on the whole path, `dir/` for a folder."""
    return any(
        fnmatch.fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern)
        for pattern in patterns
    )


def split_hub_source(source: str) -> tuple[str, str]:
    """`hf://owner/repo@revision` as (owner/repo, revision), `main` when none is named."""
    repo, _, revision = source.removeprefix("hf://").partition("@")
    return repo.strip("/"), revision or "main"


async def _hugging_face(source: WeightsSource, secret: str | None, fetcher: Fetcher) -> Listing:
    repo, revision = split_hub_source(source.source)
    hub = os.environ.get("HF_ENDPOINT", DEFAULT_HUB).rstrip("/")
    headers = {"authorization": f"Bearer {secret.strip()}"} if secret else {}
    where = f"{hub}/api/models/{quote(repo)}/revision/{quote(revision, safe='')}?blobs=true"
    answer = json.loads(await fetcher.get(where, headers))
    commit = str(answer["sha"])
    files = []
    for entry in answer.get("siblings", []):
        large = entry.get("lfs") or {}
        path = str(entry["rfilename"])
        files.append(
            RemoteFile(
                path,
                f"{hub}/{quote(repo)}/resolve/{quote(commit)}/{quote(path)}",
                Expected(
                    size=large.get("size", entry.get("size")),
                    sha256=large.get("sha256"),
                    git_sha1=None if large else entry.get("blobId"),
                ),
                headers=headers,
            )
        )
    return Listing(commit, tuple(files))


async def _https(source: WeightsSource, secret: str | None, fetcher: Fetcher) -> Listing:
    headers = {"authorization": f"Bearer {secret.strip()}"} if secret else {}
    name = unquote(urlsplit(source.source).path.rsplit("/", 1)[-1]) or "file"
    told = await fetcher.head(source.source, headers)
    length = told.get("content-length", "")
    size = int(length) if length.isdecimal() and "content-encoding" not in told else None
    version = told.get("etag") or told.get("last-modified") or ""
    return Listing(version, (RemoteFile(name, source.source, Expected(size), headers=headers),))


async def _s3(source: WeightsSource, secret: str | None, fetcher: Fetcher) -> Listing:
    bucket, _, prefix = source.source.removeprefix("s3://").partition("/")
    account = S3Account.read(secret)
    files: list[RemoteFile] = []
    token = ""
    while True:
        query = {"list-type": "2", "prefix": prefix}
        if token:
            query["continuation-token"] = token
        url, headers = account.request(bucket, "", query)
        root = ET.fromstring(await fetcher.get(url, headers))  # noqa: S314 - the operator's endpoint
        for entry in root.iter(f"{_XML}Contents"):
            key = entry.findtext(f"{_XML}Key") or ""
            if key.endswith("/"):
                continue
            path = _below(key, prefix)
            where, signed = account.request(bucket, key, {})
            size = int(entry.findtext(f"{_XML}Size") or 0)
            etag = entry.findtext(f"{_XML}ETag") or ""
            files.append(RemoteFile(path, where, Expected(size), etag, signed))
        token = root.findtext(f"{_XML}NextContinuationToken") or ""
        if not token:
            break
    told = json.dumps([[file.path, file.etag, file.expected.size] for file in files])
    return Listing(hashlib.sha256(told.encode()).hexdigest(), tuple(files))


def _below(key: str, prefix: str) -> str:
    """The path below a folder-like prefix; a prefix that is a file gives its name."""
    folder = prefix if prefix.endswith("/") or not prefix else prefix + "/"
    return key.removeprefix(folder) if key.startswith(folder) else key.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class S3Account:
    """How to sign requests (AWS Signature Version 4); without keys they are anonymous."""

    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    region: str = "us-east-1"

    @classmethod
    def read(cls, secret: str | None) -> S3Account:
        """A secret as Baseten takes it: JSON with access key id, secret access key and region."""
        if not secret:
            return cls(region=os.environ.get("AWS_REGION", "us-east-1"))
        try:
            value = json.loads(secret)
            return cls(
                value.get("access_key_id") or value["aws_access_key_id"],
                value.get("secret_access_key") or value["aws_secret_access_key"],
                value.get("session_token") or value.get("aws_session_token") or "",
                value.get("region") or value.get("aws_region") or "us-east-1",
            )
        except (ValueError, KeyError, AttributeError, TypeError):
            raise BuildFailedError(
                "weights: the secret for s3:// must be JSON with access_key_id, secret_access_key "
                "and region."
            ) from None

    def request(
        self, bucket: str, key: str, query: Mapping[str, str], now: dt.datetime | None = None
    ) -> tuple[str, dict[str, str]]:
        """The URL of a GET and its headers, good for some minutes."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        base = (endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")
        path = f"/{quote(bucket)}/{quote(key)}" if key else f"/{quote(bucket)}"
        asked = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, value in sorted(query.items())
        )
        url = base + path + (f"?{asked}" if asked else "")
        if not self.access_key:
            return url, {}
        moment = now or dt.datetime.now(dt.UTC)
        return url, self._sign(urlsplit(url).netloc, path, asked, moment)

    def _sign(self, host: str, path: str, query: str, now: dt.datetime) -> dict[str, str]:
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        headers = {"host": host, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": stamp}
        if self.session_token:
            headers["x-amz-security-token"] = self.session_token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"GET\n{path}\n{query}\n{lines}\n{names}\n{_EMPTY_SHA256}"
        scope = f"{day}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return {name: value for name, value in headers.items() if name != "host"}


def _wanted(path: str, source: WeightsSource) -> bool:
    if source.allow and not matches(path, source.allow):
        return False
    return not matches(path, source.ignore)


def _explained(error: FetchError, source: WeightsSource, secret: str | None) -> BuildFailedError:
    if error.status not in (401, 403, 404):
        return error
    if source.secret_name and secret is None:
        return BuildFailedError(
            f"weights {source.source}: the server refused ({error.status}), and the secret "
            f"{source.secret_name!r} is not set. Set it: kingpost secrets set {source.secret_name}"
        )
    hint = (
        f"the secret {source.secret_name!r} may not open it"
        if secret
        else "a private one needs auth_secret_name"
    )
    return BuildFailedError(
        f"weights {shown_url(source.source) if '@' not in source.source else source.source}: the "
        f"server answered {error.status}. Check its name and revision; {hint}."
    )
