"""The unmodified truss CLI against a platform: its own package, led there by HTTP_PROXY alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kingpost.build import truss_env
from tests.support.platform import RunningPlatform, clean_environment


@dataclass(frozen=True)
class TrussCli:
    """Runs `truss ARGS` with a `.trussrc` of its own. `program` may also be `uvx truss`."""

    platform: RunningPlatform
    home: Path
    program: tuple[str, ...]

    def __call__(
        self, *arguments: str, cwd: Path | None = None, check: bool = True, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.program, *arguments],
            cwd=cwd or self.home,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(
                f"truss {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """For commands that run on, such as watch."""
        return subprocess.Popen(
            [*self.program, *arguments],
            cwd=cwd or self.home,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        return {
            **clean_environment(),
            "HOME": str(self.home),
            "USER_TRUSSRC_PATH": str(self.home / ".trussrc"),
            "HTTP_PROXY": self.platform.address,
            "BASETEN_TRUSS_AUTH_KEYRING_DISABLED": "1",
            "TRUSS_NO_UPDATE_CHECK": "1",
            "COLUMNS": "200",
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
        }


class RunningCommand:
    """A command that runs on, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def text(self) -> str:
        return "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)


@contextlib.contextmanager
def running_truss(truss: TrussCli, *arguments: str, cwd: Path) -> Iterator[RunningCommand]:
    """Ended, with all its children, at the end."""
    command = RunningCommand(truss.start(*arguments, cwd=cwd))
    try:
        yield command
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.wait(30)
        if command.process.stdout is not None:
            command.process.stdout.close()


def make_truss_cli(platform: RunningPlatform, home: Path, *program: str) -> TrussCli:
    """`program` defaults to the truss of the pinned environment."""
    home.mkdir(parents=True, exist_ok=True)
    (home / ".trussrc").write_text(
        "[baseten]\nremote_provider = baseten\n"
        f"api_key = {platform.key}\nremote_url = http://localhost:8000\n"
    )
    (home / ".trussrc").chmod(0o600)
    return TrussCli(platform, home, program or (str(truss_env.ensure().truss),))
