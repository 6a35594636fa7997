"""Uploads: one-time credentials for one object, and the archive that the object becomes."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from kingpost.control.domain import Upload, utc_now
from kingpost.control.store import Store
from kingpost.control.vault import Vault
from kingpost.errors import InvalidInputError, NotFoundError
from kingpost.settings import DataFolder

BUCKET = "kingpost"
REGION = "us-east-1"
LIFETIME = timedelta(hours=1)
_CHUNK_BYTES = 1024 * 1024


class Uploads:
    """`begin` gives credentials, the upload endpoint fills the file, `finish` makes an archive."""

    def __init__(self, store: Store, vault: Vault, data: DataFolder) -> None:
        self._store = store
        self._vault = vault
        self._data = data
        self._archives = threading.Lock()

    def begin(self, team_id: str) -> Upload:
        """New credentials for one object. The answer's signing key is in plain text."""
        now = utc_now()
        upload = Upload(
            key=f"trusses/{secrets.token_hex(16)}.tgz",
            bucket=BUCKET,
            access_key_id="KP" + secrets.token_hex(9).upper(),
            secret_access_key=secrets.token_urlsafe(30),
            session_token=secrets.token_urlsafe(32),
            team_id=team_id,
            created_at=now,
            expires_at=now + LIFETIME,
        )
        sealed = self._vault.encrypt(upload.secret_access_key).decode()
        with self._store.begin() as tx:
            tx.uploads.insert(msgspec.structs.replace(upload, secret_access_key=sealed))
        return upload

    def by_access_key(self, access_key_id: str) -> Upload | None:
        """The upload of these credentials, with its signing key in plain text; None if unknown.

        Whether it has expired or was used is for the caller to look at (`expires_at`, `digest`).
        """
        with self._store.begin() as tx:
            found = tx.uploads.find(access_key_id=access_key_id)
        if not found:
            return None
        plain = self._vault.decrypt(found[0].secret_access_key.encode())
        return msgspec.structs.replace(found[0], secret_access_key=plain)

    def folder(self, upload: Upload) -> Path:
        """Where parts of this upload are written; made when needed."""
        folder = self._data.uploads / upload.access_key_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def finish(self, upload: Upload, file: Path) -> Upload:
        """Take `file` (below `folder`) as the whole object. Blocking: it reads the file once."""
        digest = _sha256(file)
        target = self.archive(digest)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        size = file.stat().st_size
        with file.open("rb") as content:
            os.fsync(content.fileno())
        with self._archives:
            os.utime(file)
            file.replace(target)
        with self._store.begin() as tx:
            stored = tx.uploads.get(key=upload.key)
            if stored is None:
                raise NotFoundError("This upload is no longer known. Start the push again.")
            done = msgspec.structs.replace(stored, digest=digest, size_bytes=size)
            return tx.uploads.put(done)

    def archive(self, digest: str) -> Path:
        """Where the archive with this SHA-256 lies."""
        return self._data.archives / f"{digest}.tar"

    def archive_of(self, team_id: str, key: str) -> str:
        """The digest of the archive that was uploaded as `key`.

        Raises InvalidInputError when nothing was uploaded there by this team.
        """
        with self._store.begin() as tx:
            upload = tx.uploads.get(key=key)
        if upload is None or upload.team_id != team_id or upload.digest is None:
            raise InvalidInputError(
                f"No finished upload is known under the s3_key {key!r}. Ask for upload "
                "credentials, upload the archive, then repeat the request with that key."
            )
        return upload.digest

    def drop_archive(self, digest: str, unchanged_since: float) -> bool:
        """Delete an archive, unless it was uploaded again after that time (epoch seconds)."""
        archive = self.archive(digest)
        with self._archives:
            try:
                if archive.stat().st_mtime > unchanged_since:
                    return False
                archive.unlink()
            except FileNotFoundError:
                return False
        return True

    def expired(self, now: datetime) -> tuple[Upload, ...]:
        with self._store.begin() as tx:
            return tuple(u for u in tx.uploads.find() if u.expires_at < now)

    def forget(self, upload: Upload) -> None:
        with self._store.begin() as tx:
            tx.uploads.delete(key=upload.key)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
