"""The S3-compatible upload endpoint: one object per pair of one-time credentials, nothing else."""

from kingpost.api.s3.endpoint import routes

__all__ = ["routes"]
