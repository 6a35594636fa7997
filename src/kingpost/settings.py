"""The one place for settings of a platform process, and for where things lie in the data folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from kingpost import contract

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


class SandboxMode(StrEnum):
    """`auto` runs replicas as plain processes, and says so, where a sandbox can't be had."""

    AUTO = "auto"
    REQUIRE = "require"
    OFF = "off"


@dataclass(frozen=True)
class DataFolder:
    """Paths below the data folder. Names only; whoever writes makes the folders."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "kingpost.sqlite3"

    @property
    def lock(self) -> Path:
        return self.root / "control.lock"

    @property
    def run(self) -> Path:
        """Sockets and process ids; mode 700."""
        return self.root / "run"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def gateway_socket(self) -> Path:
        return self.run / "gateway.sock"

    @property
    def listener_socket(self) -> Path:
        """Where the gateway offers its listening sockets to a new supervisor."""
        return self.run / "listener.sock"

    @property
    def gateway_state(self) -> Path:
        """The gateway's last state, mode 600."""
        return self.root / "gateway" / "state.msgpack"

    @property
    def journal(self) -> Path:
        return self.root / "gateway" / "journal"

    @property
    def admin_key(self) -> Path:
        """The first admin key in plain text, mode 600, for the operator of this machine."""
        return self.root / "admin.key"

    @property
    def secret_key(self) -> Path:
        """The key that encrypts secrets at rest, mode 600, outside the database."""
        return self.root / "secret.key"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def archives(self) -> Path:
        return self.root / "archives"

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def layers(self) -> Path:
        """What build commands changed."""
        return self.root / "layers"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def replicas(self) -> Path:
        return self.root / "replicas"

    @property
    def deployments(self) -> Path:
        """Per deployment: its build log, its private copies, its persistent data."""
        return self.root / "deployments"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def process_logs(self) -> Path:
        """Logs of the platform's own processes."""
        return self.root / "logs"


@dataclass(frozen=True)
class Limits:
    """Bounds that an operator may change; the defaults suit one machine."""

    max_archive_bytes: int = 4 * contract.GIB
    max_unpacked_bytes: int = 16 * contract.GIB
    max_archive_files: int = 200_000
    build_deadline_s: float = 120 * 60.0
    concurrent_builds: int = 2
    log_bytes_per_replica: int = 64 * contract.MIB
    log_bytes_per_deployment: int = contract.GIB
    log_retention_s: float = contract.LOG_RETENTION_S
    max_environments_bytes: int = 50 * contract.GIB
    max_bundles_bytes: int = 20 * contract.GIB
    max_layers_bytes: int = 50 * contract.GIB
    max_weights_bytes: int = 500 * contract.GIB
    max_downloads_bytes: int = 10 * contract.GIB
    unused_cache_s: float = 30 * 24 * 3600.0
    promotion_retention_s: float = 30 * 24 * 3600.0
    max_held_requests: int = 10_000
    max_held_bytes: int = 512 * contract.MIB
    stop_grace_s: float = 30.0


@dataclass(frozen=True)
class Settings:
    """What one platform is started with. Made once by `kingpost up` and passed on."""

    data: DataFolder
    host: str = DEFAULT_HOST
    host_names: tuple[str, ...] = ()
    """Names by which clients may call it beside `host` and those of this machine's loopback."""
    port: int = DEFAULT_PORT
    sandbox: SandboxMode = SandboxMode.AUTO
    emulate_accelerators: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    instance_types: Path | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"

    @property
    def address(self) -> str:
        """The address to show to a user on this machine."""
        shown = "localhost" if self.host in {"127.0.0.1", "0.0.0.0", "::1", "::"} else self.host  # noqa: S104
        return f"{self.scheme}://{shown}:{self.port}"


def write_settings(settings: Settings, path: Path) -> None:
    """Write them for a child process to read."""
    path.write_bytes(msgspec.json.encode(settings, enc_hook=str))


def read_settings(path: Path) -> Settings:
    return msgspec.json.decode(path.read_bytes(), type=Settings, dec_hook=_path)


def _path(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise TypeError(f"settings hold no {kind.__name__}")
