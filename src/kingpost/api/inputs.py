"""What a client sends, as typed values: bodies within a limit, and query strings."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar, get_origin, get_type_hints

import msgspec
from starlette.requests import Request

from kingpost.errors import InvalidInputError, TooLargeError

T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY_BYTES: Final = 10_000_000
_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<where>[^`]*)`)?$", re.DOTALL)


async def read_body(request: Request, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises TooLargeError past the limit, before reading where it is announced."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        parts.append(part)
    return b"".join(parts)


def decode(body: bytes, kind: type[T]) -> T:
    """A JSON body as `kind`; unknown fields are passed over. No body counts as `{}`.

    Raises InvalidInputError that names the field and what was expected.
    """
    try:
        return msgspec.json.decode(body.strip() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInputError(_explain(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(
            f"The request body is not valid JSON: {error}. Send a JSON object."
        ) from error


def query(request: Request, kind: type[T]) -> T:
    """The query string as `kind`. A field of several values may be repeated."""
    given: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for name in kind.__struct_fields__:
        values = request.query_params.getlist(name)
        if values:
            given[name] = values if get_origin(hints[name]) is tuple else values[-1]
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError(_explain(error)) from error


def _explain(error: msgspec.ValidationError) -> str:
    found = _AT.match(str(error))
    what, where = (found["what"], found["where"]) if found else (str(error), None)
    what = what.replace("`", "")
    if where:
        return f"{where}: {what[:1].lower()}{what[1:]}."
    return f"{what}."


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The request body is larger than {limit_bytes // 1_000_000} MB, which is the limit here. "
        "Upload archives through the upload endpoint."
    )
