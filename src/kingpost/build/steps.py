"""Runs one command of a build in the engine's sandbox and turns its failure into words."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uv

from kingpost.build.progress import Progress
from kingpost.engine.base import Bind, Command, OnLine, Overlay
from kingpost.errors import BuildFailedError, StorageFullError

_LAST_LINES = 20
_PASSED_ON = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX_STRATEGY",
    "UV_HTTP_TIMEOUT",
    "UV_NATIVE_TLS",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "SSL_CERT_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)
_NO_SPACE = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
_SHOWN_BY_SANDBOX = ("/usr", "/etc/ssl/certs")


class CommandRunner(Protocol):
    """What a build wants of an engine."""

    @property
    def sandboxed(self) -> bool: ...

    async def run(self, command: Command, on_line: OnLine) -> int: ...


@dataclass(frozen=True)
class Steps:
    """Who runs a build's commands, as whom, and where its lines go.

    The path of the `data` folder is taken out of what they print.
    """

    engine: CommandRunner
    user: str
    progress: Progress
    data: Path

    async def run(
        self,
        what: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: str = "/",
        binds: Sequence[Bind] = (),
        overlays: Sequence[Overlay] = (),
        network: bool = True,
    ) -> list[str]:
        """Its last lines. Raises `BuildFailedError` that names `what` when it fails, and
        `StorageFullError` when it said that no space is left."""
        said: deque[str] = deque(maxlen=_LAST_LINES)

        def on_line(line: str) -> None:
            told = line.replace(str(self.data), "<data>")
            said.append(told)
            self.progress.line(f"  {told}")

        command = Command(
            user=self.user,
            argv=tuple(str(word) for word in argv),
            env=env,
            cwd=cwd,
            binds=unique(binds),
            overlays=tuple(overlays),
            network=network,
        )
        code = await self.engine.run(command, on_line)
        if code:
            tail = "\n".join(said)
            if any(words in tail for words in _NO_SPACE):
                raise StorageFullError(
                    f"{self.progress.current}: {what} found no space left on the disk. Free space "
                    f"or delete deployments, then push again. Its last lines:\n{tail}"
                )
            raise BuildFailedError(
                f"{self.progress.current}: {what} ended with exit code {code}."
                + (f" Its last lines:\n{tail}" if tail else " It printed nothing.")
            )
        return list(said)


def shown(*paths: Path) -> list[Bind]:
    """Read-only binds at the same path, for what the sandbox would not show anyway."""
    return [
        Bind(str(path), str(path))
        for path in paths
        if not any(path.is_relative_to(known) for known in _SHOWN_BY_SANDBOX)
    ]


def unique(binds: Sequence[Bind]) -> tuple[Bind, ...]:
    """The last bind of each target."""
    return tuple({bind.target: bind for bind in binds}.values())


def uv_tool() -> Path:
    return Path(uv.find_uv_bin())


def index_settings() -> tuple[dict[str, str], list[Bind]]:
    """The operator's package index, proxy and certificates, for commands that install."""
    env = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    files = [Path(value) for value in env.values() if value.startswith("/") and " " not in value]
    return env, shown(*(path for path in files if path.exists()))
