"""The one exception tree, and its one mapping to HTTP answers.

A message says what happened, what was expected and what to do next; it never holds a secret,
a traceback or a path of the server.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KingpostError(Exception):
    """Base of every error that a user may see. `code` and `http_status` come from the class."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The management API's error body: `{"code", "message"}`."""
        return {"code": self.code, "message": self.message}


class InvalidInputError(KingpostError):
    code = "VALIDATION_ERROR"
    http_status = 400


class UnauthorizedError(KingpostError):
    code = "UNAUTHORIZED"
    http_status = 401


class ForbiddenError(KingpostError):
    code = "FORBIDDEN"
    http_status = 403


class NotFoundError(KingpostError):
    code = "RESOURCE_NOT_FOUND"
    http_status = 404


class ConflictError(KingpostError):
    code = "CONFLICT"
    http_status = 409


class StaleWriteError(ConflictError):
    """A row changed between its reading and its writing; read again and decide again."""


class TooLargeError(KingpostError):
    code = "PAYLOAD_TOO_LARGE"
    http_status = 413


class NotSupportedError(KingpostError):
    """The contract has it, this platform does not yet; the message says what to do instead."""

    code = "NOT_SUPPORTED"
    http_status = 501


class UnavailableError(KingpostError):
    code = "UNAVAILABLE"
    http_status = 503


class StorageFullError(KingpostError):
    code = "STORAGE_FULL"
    http_status = 507


class BuildFailedError(KingpostError):
    """A build ended without something runnable; the message names the failing step."""

    code = "BUILD_FAILED"
    http_status = 422


class BuildStoppedError(BuildFailedError):
    """A build was stopped by a user or by its deadline."""

    code = "BUILD_STOPPED"


class EngineError(KingpostError):
    """A replica could not be started or stopped on this machine."""

    code = "ENGINE_ERROR"
    http_status = 500
