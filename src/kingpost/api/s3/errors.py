"""What an S3 client is told: S3's error codes, so that boto3 and others show the message."""

from __future__ import annotations


class S3Error(Exception):
    """`code` is one of S3's error codes."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def denied(message: str, code: str = "AccessDenied") -> S3Error:
    return S3Error(403, code, message)


def invalid(message: str, code: str = "InvalidRequest") -> S3Error:
    return S3Error(400, code, message)


def no_such_upload() -> S3Error:
    return S3Error(
        404, "NoSuchUpload", "This multipart upload is not known, or it has ended. Start again."
    )


def too_large(limit_bytes: int) -> S3Error:
    return S3Error(
        413,
        "EntityTooLarge",
        f"The archive is larger than {limit_bytes} bytes, which is this platform's limit. Leave "
        "out what is not needed with a .truss_ignore file, or load weights at run time.",
    )
