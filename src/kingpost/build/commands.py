"""`build_commands`: run once on overlays whose upper layers are kept and shown to every replica.

Writable and kept are the environment, `/app`, `/packages`, `/root` (the home folder), `/usr/local`
and every other top folder that a command names, such as `/opt` or `/models`. Not kept is `/tmp`;
not writable is the system itself, since commands run as the team's user.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kingpost.build.environment import Environment, Environments
from kingpost.build.runnable import APP, HOME, PACKAGES, Layer
from kingpost.build.steps import Steps, shown, uv_tool
from kingpost.build.store import Entry, Store, key_of
from kingpost.engine.base import Bind, Overlay
from kingpost.settings import DataFolder

_LOCAL = "/usr/local"
_RECIPE = 1
_SYSTEM_WORDS = """
app bin boot dev etc home lib lib32 lib64 libx32 packages proc root run sbin secrets sys tmp usr var
"""
_SYSTEM = frozenset(_SYSTEM_WORDS.split())
_TOP = re.compile(r"(?<![\w.:/~$}-])/([A-Za-z0-9_][\w.-]*)")
_WORD = re.compile(r"[^\s;|&<>()\"'`=,]+")
_OWN_FOLDERS = ("bin", "etc", "include", "lib", "libexec", "sbin", "share", "src", "var")


@dataclass(frozen=True)
class Job:
    """What to run and on what. `bundle_key` and the folders are those of the code."""

    commands: tuple[str, ...]
    environment: Environment
    user: str
    bundle_key: str
    app: Path
    packages: Path | None
    sandboxed: bool = True

    @property
    def sees_code(self) -> bool:
        return reads_code(self.commands, [path.name for path in self.app.iterdir()])

    @property
    def key(self) -> str:
        """Code belongs to it only when the commands may read it: else it is not shown to them."""
        code = self.bundle_key if self.sees_code else ""
        return key_of(_RECIPE, self.environment.key, self.commands, self.user, code, self.sandboxed)


class BuildCommands:
    def __init__(self, data: DataFolder, environments: Environments) -> None:
        self.store = Store(data.layers)
        self._environments = environments

    async def get(
        self, job: Job, steps: Steps, *, again: bool = False
    ) -> tuple[str, tuple[Layer, ...], bool]:
        """The key, the layers that hold anything, and whether they were there already."""
        key = job.key
        async with self.store.locked(key):
            entry = None if again else self.store.find(key)
            reused = entry is not None
            if entry is None:
                work, final = self.store.begin(key, again=again)
                try:
                    targets = await self._run(job, steps, work, no_cache=again)
                    entry = self.store.publish(work, final, {"targets": targets})
                except BaseException:
                    self.store.discard(work)
                    raise
        return entry.key, layers_of(entry), reused

    async def _run(self, job: Job, steps: Steps, work: Path, *, no_cache: bool) -> dict[str, str]:
        empty, scratch = work / "empty", work / "scratch"
        for folder in (empty, scratch):
            folder.mkdir()
        overlays = []
        targets: dict[str, str] = {}
        for number, (target, lower) in enumerate(self._targets(job, empty).items()):
            upper = work / f"layer{number}"
            upper.mkdir()
            if target == _LOCAL:
                for name in _OWN_FOLDERS:
                    (upper / name).mkdir()
            targets[f"layer{number}"] = target
            overlays.append(Overlay((str(lower),), str(upper), str(scratch / str(number)), target))
        env, binds = self._settings(job, no_cache=no_cache)
        for number, command in enumerate(job.commands, 1):
            steps.progress.line(f"  $ {command}")
            await steps.run(
                f"command {number} of {len(job.commands)}",
                ["/bin/sh", "-c", command],
                env=env,
                cwd=APP,
                binds=binds,
                overlays=overlays,
            )
        for folder in (empty, scratch):
            shutil.rmtree(folder, ignore_errors=True)
        for name in [name for name in targets if not _holds_files(work / name)]:
            shutil.rmtree(work / name)
            del targets[name]
        return targets

    def _targets(self, job: Job, empty: Path) -> dict[str, Path]:
        targets = {str(job.environment.venv): job.environment.venv, HOME: empty}
        targets[APP] = job.app if job.sees_code else empty
        if job.packages is not None:
            targets[PACKAGES] = job.packages if job.sees_code else empty
        if job.sandboxed or any(_LOCAL in command for command in job.commands):
            targets[_LOCAL] = Path(_LOCAL)
        for name in named_folders(job.commands):
            targets[f"/{name}"] = empty
        return targets

    def _settings(self, job: Job, *, no_cache: bool) -> tuple[dict[str, str], list[Bind]]:
        venv = job.environment.venv
        image = [f"{job.environment.image}/bin"] if job.environment.image else []
        env, binds = self._environments.settings(job.user, no_cache=no_cache)
        path = [f"{venv}/bin", *image, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
        path += ["/sbin", "/bin", f"{HOME}/.local/bin", str(uv_tool().parent)]
        env |= {
            "PATH": ":".join(path),
            "HOME": HOME,
            "APP_HOME": APP,
            "VIRTUAL_ENV": str(venv),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        return env, [*binds, *shown(uv_tool()), *job.environment.runtime_binds]


def layers_of(entry: Entry) -> tuple[Layer, ...]:
    targets: dict[str, str] = entry.manifest.get("targets", {})
    return tuple(Layer(target, entry.root / name) for name, target in targets.items())


def named_folders(commands: Iterable[str]) -> list[str]:
    """Top folders that commands name and that are theirs to fill, such as `opt` or `models`."""
    found = {name for command in commands for name in _TOP.findall(command)}
    return sorted(found - _SYSTEM)


def reads_code(commands: Iterable[str], entries: Iterable[str]) -> bool:
    """Whether commands may read what is in `/app` or `/packages`, as far as their text can tell.

    They do when they name an entry of `/app`, `/packages`, a relative path that leads anywhere, or
    a pattern. When they don't, the code is not there for them, so what they leave is good for
    every version of it.
    """
    names = set(entries)
    return any(_may_read(command, names) for command in commands)


def _may_read(command: str, names: set[str]) -> bool:
    before = ""
    for word in _WORD.findall(command):
        path = word.removeprefix("$APP_HOME").removeprefix("${APP_HOME}")
        path = path.removeprefix(APP) if path.startswith(f"{APP}/") or path == APP else path
        inside = path != word
        if word.startswith(PACKAGES) or "APP_HOME" in path:
            return True
        if inside and path.strip("/") == "" and before not in {"cd", "-P", "-d", "-C", "-p"}:
            return True
        first = path.lstrip("/").split("/", 1)[0] if inside else path.split("/", 1)[0]
        if (inside or not path.startswith("/")) and (first in names or _leads_anywhere(first)):
            return True
        before = word
    return False


def _leads_anywhere(first: str) -> bool:
    return first in {".", "..", "*"} or first.startswith(("*", "?", "["))


def _holds_files(folder: Path) -> bool:
    return any(not path.is_dir() or path.is_symlink() for path in folder.rglob("*"))
