"""The user's remotes: a TOML file for its owner alone, and which remote a command means."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from kingpost.client.remote import BASETEN_URL, LOCAL_URL, Remote, is_loopback, normalize_url
from kingpost.errors import ForbiddenError, InvalidInputError, NotFoundError
from kingpost.settings import DataFolder

LOCAL: Final = "local"
BASETEN: Final = "baseten"

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.\-]{0,63}")


@dataclass(frozen=True)
class Remotes:
    """What the file holds: remotes by name, and which of them is the default."""

    by_name: Mapping[str, Remote] = field(default_factory=dict)
    default: str | None = None

    def put(self, remote: Remote, *, make_default: bool) -> Remotes:
        check_name(remote.name)
        default = remote.name if make_default else self.default
        return Remotes({**self.by_name, remote.name: remote}, default)

    def remove(self, name: str) -> Remotes:
        self.need(name)
        kept = {n: r for n, r in self.by_name.items() if n != name}
        return Remotes(kept, None if self.default == name else self.default)

    def use(self, name: str) -> Remotes:
        if name not in {LOCAL, BASETEN}:
            self.need(name)
        return replace(self, default=name)

    def need(self, name: str) -> Remote:
        if name in self.by_name:
            return self.by_name[name]
        known = ", ".join(sorted(self.by_name)) or "none yet"
        raise NotFoundError(
            f"No remote is named {name!r} (known: {known}). Add it with `kingpost login {name}`."
        )


def remotes_path(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_CONFIG_HOME") or ""
    root = (
        Path(base) if base.startswith("/") else Path(env.get("HOME", "~")).expanduser() / ".config"
    )
    return root / "kingpost" / "remotes.toml"


def data_folder(env: Mapping[str, str]) -> DataFolder:
    """The platform's data folder when none is named: `$KINGPOST_DATA_DIR`, else the user's own."""
    named = env.get("KINGPOST_DATA_DIR")
    if named:
        return DataFolder(Path(named).expanduser().absolute())
    base = env.get("XDG_DATA_HOME") or ""
    home = Path(env.get("HOME", "~")).expanduser()
    return DataFolder((Path(base) if base.startswith("/") else home / ".local/share") / "kingpost")


def check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(
            f"{name!r} can't name a remote: expected up to 64 letters, digits, '-', '_' or '.'."
        )


def load(path: Path) -> Remotes:
    """Raises ForbiddenError when others may read the file, InvalidInputError when it is broken."""
    try:
        with path.open("rb") as file:
            _refuse_open_file(path, os.fstat(file.fileno()))
            text = file.read().decode()
    except FileNotFoundError:
        return Remotes()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not text; move it away and log in again.") from None
    return parse(text, shown=str(path))


def parse(text: str, *, shown: str = "remotes.toml") -> Remotes:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(
            f"{shown} is broken: {error}. Correct it, or remove it and log in again."
        ) from None
    tables = document.get("remotes", {})
    default = document.get("default")
    if not isinstance(tables, dict) or not isinstance(default, str | None):
        raise InvalidInputError(f"{shown}: expected `default` as text and one [remotes.NAME] each.")
    remotes = {name: _remote(name, table, shown) for name, table in tables.items()}
    return Remotes(remotes, default)


def render(remotes: Remotes) -> str:
    lines = ["# Written by `kingpost login`. Holds keys: only its owner may read it."]
    if remotes.default is not None:
        lines.append(f"default = {_toml_string(remotes.default)}")
    for name, remote in sorted(remotes.by_name.items()):
        lines += ["", f"[remotes.{_toml_string(name)}]", f"url = {_toml_string(remote.url)}"]
        if remote.api_key is not None:
            lines.append(f"api_key = {_toml_string(remote.api_key)}")
        if remote.insecure:
            lines.append("insecure = true")
        if remote.ca_file is not None:
            lines.append(f"ca_file = {_toml_string(remote.ca_file)}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def editing(path: Path) -> Iterator[RemotesFile]:
    """Read, change, write as one: two logins at once both count."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.parent / "remotes.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield RemotesFile(path, load(path))
    finally:
        os.close(lock)


@dataclass(frozen=True)
class RemotesFile:
    path: Path
    remotes: Remotes

    def save(self, remotes: Remotes) -> None:
        handle, temporary = tempfile.mkstemp(prefix=".remotes-", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:  # mkstemp makes it mode 600
                file.write(render(remotes))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def resolve(asked: str | None, remotes: Remotes, env: Mapping[str, str]) -> Remote:
    """The remote that a command means.

    `asked` (an address or a name), else `$KINGPOST_REMOTE`, else the file's default, else this
    machine. `local` and `baseten` need not be in the file.
    """
    name = asked or env.get("KINGPOST_REMOTE") or remotes.default or LOCAL
    if "://" in name:
        url = normalize_url(name)
        return _with_key_from_environment(Remote(url, url), env)
    if name in remotes.by_name:
        return remotes.by_name[name]
    if name == LOCAL:
        return _with_key_from_environment(Remote(LOCAL, local_url(data_folder(env))), env)
    if name == BASETEN:
        return _with_key_from_environment(Remote(BASETEN, BASETEN_URL), env)
    return remotes.need(name)


def local_url(data: DataFolder) -> str:
    """Where this machine's platform was last started, by what `kingpost up` left in its folder."""
    try:
        left = msgspec.json.decode((data.run / "settings.json").read_bytes(), type=_Started)
    except (OSError, msgspec.MsgspecError):
        return LOCAL_URL
    host = f"[{left.host}]" if ":" in left.host else left.host
    scheme = "https" if left.tls_cert else "http"
    if not is_loopback(f"http://{host}"):
        host = "localhost"
    try:
        return normalize_url(f"{scheme}://{host}:{left.port}")
    except InvalidInputError:
        return LOCAL_URL


class _Started(msgspec.Struct):
    """The part of a platform's settings (`kingpost.settings.write_settings`) that leads to it."""

    host: str
    port: int
    tls_cert: str | None = None


def _with_key_from_environment(remote: Remote, env: Mapping[str, str]) -> Remote:
    if remote.is_baseten:
        return replace(remote, api_key=env.get("BASETEN_API_KEY") or None)
    key = env.get("KINGPOST_API_KEY") or None
    if key is None and is_loopback(remote.url):
        key = _admin_key(data_folder(env))
    return replace(remote, api_key=key)


def _admin_key(data: DataFolder) -> str | None:
    try:
        return data.admin_key.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _refuse_open_file(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in {os.geteuid(), 0}:
        raise ForbiddenError(f"{path} belongs to another user, so its keys are not used.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ForbiddenError(
            f"Others may read or change {path}, which holds keys. Close it: chmod 600 {path}"
        )


def _remote(name: str, table: Any, shown: str) -> Remote:
    if not isinstance(table, dict) or not isinstance(table.get("url"), str):
        raise InvalidInputError(f"{shown}: remote {name!r} has no `url`. Log in to it again.")
    check_name(name)
    key, ca_file = table.get("api_key"), table.get("ca_file")
    if not isinstance(key, str | None) or not isinstance(ca_file, str | None):
        raise InvalidInputError(f"{shown}: `api_key` and `ca_file` of {name!r} must be text.")
    return Remote(name, normalize_url(table["url"]), key, table.get("insecure") is True, ca_file)


def _toml_string(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"'}
    return (
        '"'
        + "".join(escapes.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in text)
        + '"'
    )
