"""Values that the truss CLI packs into strings: base64 of JSON, base64 of text, JSON."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from kingpost.errors import InvalidInputError


def config_of(encoded: str) -> dict[str, Any]:
    """A Truss config from base64(JSON). Raises InvalidInputError."""
    return _packed_object("config", encoded, "the Truss config")


def patch_of(encoded: str) -> dict[str, Any]:
    """A patch of a development deployment from base64(JSON). Raises InvalidInputError."""
    return _packed_object("patch", encoded, "the patch")


def _packed_object(argument: str, encoded: str, what: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(
            base64.b64decode(encoded, validate=True), type=dict[str, Any]
        )
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{argument} can't be read: expected the base64 of a JSON object that holds {what}. "
            "Update the truss package, then try again."
        ) from error
    return found


def text_of(encoded: str | None) -> str | None:
    """Text from base64; None for what is none (contract: an unusable raw_config is dropped)."""
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def object_of(text: str | None) -> dict[str, Any] | None:
    """A JSON object from text; None for what is none. For what describes the client."""
    if text is None:
        return None
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError):
        return None
    return found


def labels_of(value: Any) -> dict[str, Any] | None:
    """Labels are an object or nothing (truss: `--labels`)."""
    if value is None or isinstance(value, dict):
        return value
    raise InvalidInputError(
        f"user_deploy_metadata is a {type(value).__name__}; expected a JSON object of labels."
    )
