"""`/s3/<bucket>/<key>`: PUT, multipart and HEAD, for the holder of an upload's credentials."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import Counter
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kingpost.api import inputs
from kingpost.api.s3 import sigv4
from kingpost.api.s3.errors import S3Error, denied, invalid, too_large
from kingpost.api.s3.parts import Parts, parse_part_list, parse_part_number
from kingpost.api.s3.receive import declared_size, receive
from kingpost.control.domain import Upload, utc_now
from kingpost.control.platform import Platform
from kingpost.errors import TooLargeError

_MAX_LIST_BYTES: Final = 4_000_000
_XMLNS: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_ETAG_FILE: Final = "etag"


def routes(platform: Platform) -> list[Route]:
    return [Route("/s3/{bucket}/{key:path}", _Endpoint(platform))]


class _Endpoint:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._limit_bytes = platform.settings.limits.max_archive_bytes
        self._finishing: set[str] = set()
        self._under_way_bytes: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        upload = self._authenticated(request)
        response = await self._answer(request, upload)
        await response(scope, receive, send)

    async def _answer(self, request: Request, upload: Upload) -> Response:
        query = request.query_params
        if request.method == "HEAD":
            return self._head(upload)
        if upload.digest is not None:
            return self._repeated(request, upload)
        if request.method == "PUT" and "uploadId" in query:
            return await self._put_part(request, upload)
        if request.method == "PUT":
            return await self._put(request, upload)
        if request.method == "POST" and "uploads" in query:
            return await self._begin_parts(upload)
        if request.method == "POST" and "uploadId" in query:
            return await self._complete(request, upload)
        if request.method == "DELETE" and "uploadId" in query:
            await asyncio.to_thread(self._parts(request, upload).drop)
            return Response(status_code=204)
        raise S3Error(
            405,
            "MethodNotAllowed",
            "Only uploads are possible here: PUT, and the multipart operations.",
        )

    def _authenticated(self, request: Request) -> Upload:
        """The upload whose credentials signed this request, and whose key it names."""
        scope = request.scope
        signed = sigv4.SignedRequest(
            request.method,
            scope.get("raw_path") or scope["path"].encode(),
            scope["query_string"],
            scope["headers"],
        )
        authorization = sigv4.parse_authorization(signed.header("authorization"))
        upload = self._platform.uploads.by_access_key(authorization.access_key_id)
        if upload is None:
            raise denied("The access key is not known here.", "InvalidAccessKeyId")
        now = utc_now()
        sigv4.verify(
            signed,
            authorization,
            secret=upload.secret_access_key,
            session_token=upload.session_token,
            now=now,
        )
        if now > upload.expires_at:
            raise denied("These upload credentials have expired. Ask for new ones.", "ExpiredToken")
        place = (request.path_params["bucket"], request.path_params["key"])
        if place != (upload.bucket, upload.key):
            raise denied("These credentials are for another object. Use the key they came with.")
        return upload

    def _head(self, upload: Upload) -> Response:
        if upload.digest is None:
            raise S3Error(404, "NoSuchKey", "Nothing was uploaded under this key yet.")
        headers = {"Content-Length": str(upload.size_bytes), "ETag": self._stored_etag(upload)}
        return Response(headers=headers)

    def _repeated(self, request: Request, upload: Upload) -> Response:
        """A repeat of the request that finished the upload, whose answer got lost, is fine."""
        etag = self._stored_etag(upload)
        if request.method == "PUT" and "uploadId" not in request.query_params:
            sent = request.headers.get("x-amz-content-sha256", "").encode()
            if hmac.compare_digest(sent, (upload.digest or "").encode()):
                return Response(headers={"ETag": etag})
        if request.method == "POST" and "uploadId" in request.query_params:
            return _completed(request, upload, etag)
        raise denied(
            "These credentials were used already: the object is uploaded. Ask for new ones."
        )

    async def _put(self, request: Request, upload: Upload) -> Response:
        folder = self._platform.uploads.folder(upload)
        target = folder / f"{secrets.token_hex(8)}.tmp"
        received = await receive(request, target, self._limit_bytes)
        await self._finish(upload, received.path, received.md5)
        return Response(headers={"ETag": f'"{received.md5}"'})

    async def _begin_parts(self, upload: Upload) -> Response:
        folder = self._platform.uploads.folder(upload)
        parts = await asyncio.to_thread(Parts.begin, folder)
        return _xml(
            f"<InitiateMultipartUploadResult {_XMLNS}>"
            f"<Bucket>{escape(upload.bucket)}</Bucket><Key>{escape(upload.key)}</Key>"
            f"<UploadId>{parts.upload_id}</UploadId></InitiateMultipartUploadResult>"
        )

    async def _put_part(self, request: Request, upload: Upload) -> Response:
        number = parse_part_number(request.query_params.get("partNumber", ""))
        parts = self._parts(request, upload)
        size = declared_size(request)
        taken = parts.size_bytes() + self._under_way_bytes[parts.upload_id]
        if taken + size > self._limit_bytes:
            raise too_large(self._limit_bytes)
        self._under_way_bytes[parts.upload_id] += size
        try:
            received = await receive(request, parts.new_file(), self._limit_bytes)
            parts.keep(number, received)
        finally:
            self._under_way_bytes[parts.upload_id] -= size
            self._under_way_bytes += Counter()  # drops what is back at zero
        return Response(headers={"ETag": f'"{received.md5}"'})

    async def _complete(self, request: Request, upload: Upload) -> Response:
        parts = self._parts(request, upload)
        try:
            listed = parse_part_list(await inputs.read_body(request, _MAX_LIST_BYTES))
        except TooLargeError as error:
            raise invalid("The list of parts is too long.", "MalformedXML") from error
        try:
            whole, etag = await asyncio.to_thread(parts.join, listed)
        except OSError:
            await asyncio.to_thread(parts.drop)
            raise
        await self._finish(upload, whole, etag)
        return _completed(request, upload, f'"{etag}"')

    async def _finish(self, upload: Upload, file: Path, etag: str) -> None:
        """The file becomes the upload's archive, once."""
        if upload.key in self._finishing:
            raise S3Error(
                409, "OperationAborted", "The same upload is being finished. Wait for its end."
            )
        self._finishing.add(upload.key)
        try:
            await asyncio.to_thread(self._take, upload, file, etag)
        except BaseException:
            await asyncio.to_thread(file.unlink, missing_ok=True)
            raise
        finally:
            self._finishing.discard(upload.key)

    def _take(self, upload: Upload, file: Path, etag: str) -> None:
        fresh = self._platform.uploads.by_access_key(upload.access_key_id)
        if fresh is None or fresh.digest is not None:
            raise denied("These credentials were used already. Ask for new ones.")
        folder = self._platform.uploads.folder(upload)
        (folder / _ETAG_FILE).write_text(etag)
        self._platform.uploads.finish(upload, file)
        for left in folder.glob("parts-*"):
            Parts(folder, left.name.removeprefix("parts-")).drop()

    def _stored_etag(self, upload: Upload) -> str:
        file = self._platform.uploads.folder(upload) / _ETAG_FILE
        etag = file.read_text() if file.is_file() else upload.digest
        return f'"{etag}"'

    def _parts(self, request: Request, upload: Upload) -> Parts:
        return Parts(self._platform.uploads.folder(upload), request.query_params["uploadId"])


def _completed(request: Request, upload: Upload, etag: str) -> Response:
    return _xml(
        f"<CompleteMultipartUploadResult {_XMLNS}>"
        f"<Location>{escape(str(request.url.replace(query='')))}</Location>"
        f"<Bucket>{escape(upload.bucket)}</Bucket><Key>{escape(upload.key)}</Key>"
        f"<ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>"
    )


def _xml(body: str) -> Response:
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{body}', media_type="application/xml")
