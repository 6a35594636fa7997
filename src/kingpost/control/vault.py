"""Encryption at rest, and digests of keys. The encryption key lies outside the database."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from kingpost.errors import KingpostError


class Vault:
    """Encrypts and decrypts with the key in `path`, which is made (mode 600) when absent."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            write_private(path, Fernet.generate_key() + b"\n")
        self._fernet = Fernet(path.read_bytes().strip())

    def encrypt(self, value: str) -> bytes:
        return self._fernet.encrypt(value.encode())

    def decrypt(self, ciphertext: bytes) -> str:
        try:
            return self._fernet.decrypt(ciphertext).decode()
        except InvalidToken as error:
            raise KingpostError(
                "A stored secret can't be decrypted: the data folder's secret.key is not the one "
                "it was encrypted with. Restore that file, or set the secret again."
            ) from error


def digest(key: str) -> str:
    """The hex SHA-256 by which a key is known. Keys are random, so no salt is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> tuple[str, str]:
    """A new API key in the contract's form `<prefix>.<secret>`, and its prefix."""
    prefix = secrets.token_hex(4)
    return f"{prefix}.{secrets.token_urlsafe(32)}", prefix


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
