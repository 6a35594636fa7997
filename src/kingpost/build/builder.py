"""The whole of a build, in order: archive, config, environment, code, and what replicas start from.

Each step is another module's; here is only their order, the log, and how a build ends early.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kingpost.build import (
    archive,
    bundle,
    commands,
    config,
    docker_server,
    environment,
    external_data,
    interpreters,
    runnable,
    system_packages,
    weights,
)
from kingpost.build import collect as collecting
from kingpost.build.base import BuildRequest, Runnable, Validation
from kingpost.build.fetch import Fetcher
from kingpost.build.images import ImageTable
from kingpost.build.progress import Progress
from kingpost.build.steps import CommandRunner, Steps
from kingpost.build.store import UNFINISHED, Store
from kingpost.build.truss_client import TrussClient
from kingpost.engine.base import OnLine
from kingpost.errors import (
    BuildFailedError,
    BuildStoppedError,
    KingpostError,
    StorageFullError,
)
from kingpost.settings import DataFolder, Limits

_INTERPRETERS_FOR_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Read:
    """What the first step found out. `context` is truss's build context."""

    context: Path
    config: config.ModelConfig
    file_type: str
    truss_hash: str
    truss_signature: str
    archive_hash: str


class Builder:
    """One per data folder. Builds may run at the same time; how many is the caller's matter."""

    def __init__(
        self,
        data: DataFolder,
        engine: CommandRunner,
        limits: Limits | None = None,
        *,
        truss: TrussClient | None = None,
    ) -> None:
        self._data = data
        self._engine = engine
        self._limits = limits or Limits()
        self._truss = truss or TrussClient(home=data.cache / "truss-home")
        self._work = data.cache / "builds"
        self._environments = environment.Environments(data)
        self._bundles = bundle.Bundles(data)
        self._build_commands = commands.BuildCommands(data, self._environments)
        self._fetcher = Fetcher()
        self._weights = weights.Weights(data, self._fetcher)
        self._images = ImageTable(data)
        self._found: tuple[float, tuple[interpreters.Interpreter, ...]] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._under_way: dict[str, float] = {}
        self._sizes: dict[Path, int] = {}
        self._downloads_changed = True

    @property
    def stores(self) -> tuple[Store, ...]:
        """All that builds leave; see `collect`."""
        return (
            self._environments.store,
            self._bundles.store,
            self._build_commands.store,
            self._weights.store,
        )

    async def start(self) -> None:
        """Remove what killed builds left and warm the truss worker, without waiting for it."""
        await asyncio.to_thread(self._clean)
        self._warming = asyncio.create_task(self._warm())

    async def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._truss.close()
        await self._fetcher.close()

    async def validate(self, given: dict[str, Any]) -> Validation:
        """Truss's own errors and warnings for a config, in readable sentences."""
        said = await self._truss.validate(given)
        return Validation(tuple(said["errors"]), tuple(said["warnings"]), said["parsed"])

    async def collect(self, in_use: Iterable[Runnable]) -> list[collecting.Kept]:
        """Remove what no deployment needs and no quota has room for; returns what went.

        What a build that is under way may have found in a cache stays.
        """
        used = collecting.paths_in_use(in_use)
        stores = {store.root.name: store for store in self.stores}
        found = await asyncio.to_thread(collecting.survey, stores.values(), self._sizes)
        now = time.time()
        grace_s = collecting.GRACE_S + now - min(self._under_way.values(), default=now)
        rules = collecting.quotas(self._limits)
        gone = []
        for entry in collecting.collect(found, used, now, rules, grace_s):
            try:
                if stores[entry.kind].used_at(entry.path) != entry.used_at:
                    continue  # a build has found it meanwhile
                hidden = collecting.hide(entry.path)
            except FileNotFoundError:
                continue
            await asyncio.to_thread(shutil.rmtree, hidden, ignore_errors=True)
            gone.append(entry)
        return gone

    async def trim_downloads(self) -> int:
        """Keep what installers downloaded within its limit; how many bytes went.

        Nothing while a build is under way, nor when none was since the last time.
        """
        if self._under_way or not self._downloads_changed:
            return 0
        self._downloads_changed = False
        sizes = await asyncio.to_thread(_sizes_of, self._environments.downloads)
        if self._under_way:
            self._downloads_changed = True
            return 0
        most = self._limits.max_downloads_bytes
        hidden = [collecting.hide(path) for path in collecting.oversized(sizes.items(), most)]
        for path in hidden:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        return sum(sizes.values()) - sum(size for path, size in sizes.items() if path.exists())

    async def build(self, request: BuildRequest, on_line: OnLine) -> Runnable:
        """Lines of the log go to `on_line`. Cancelling it ends every process of the build.

        Raises `BuildFailedError` that names the failing step, `BuildStoppedError` past the
        deadline, `InvalidInputError` and `TooLargeError` for a bad archive, `StorageFullError`.
        """
        work = self._work / f"{request.deployment_id}-{secrets.token_hex(4)}"
        progress = Progress(on_line)
        self._under_way[work.name] = time.time()
        self._downloads_changed = True
        try:
            async with asyncio.timeout(request.deadline_s):
                return await self._build(request, work, progress)
        except BuildFailedError as error:
            raise type(error)(error.message.replace(f"{work / 'truss'}/", "")) from error
        except TimeoutError as error:
            raise BuildStoppedError(
                f"{progress.current}: the build took longer than its deadline of "
                f"{request.deadline_s / 60:.0f} minutes and was stopped."
            ) from error
        except OSError as error:
            raise _for_people(error, progress.current) from error
        finally:
            del self._under_way[work.name]
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    async def _build(self, request: BuildRequest, work: Path, progress: Progress) -> Runnable:
        steps = Steps(self._engine, request.user, progress, self._data.root)
        read = await self._read(request, work, progress)
        found = await self._environment(request, read, steps)
        made = await self._bundle(request, read, found, steps)
        layers = await self._commands(request, read, found, made, steps)
        weights_ = await self._weights_of(request, read, progress)
        development = self._truss.environment if request.development else None
        parts = runnable.Parts(
            config=read.config,
            environment=found,
            bundle=made,
            truss_hash=read.truss_hash,
            truss_signature=read.truss_signature,
            layers=layers,
            weights=weights_,
            development=development if read.config.docker_server is None else None,
            sandboxed=self._engine.sandboxed,
        )
        self._check_server(parts)
        result = runnable.assemble(parts)
        return _with_warnings(result, progress)

    async def _read(self, request: BuildRequest, work: Path, progress: Progress) -> _Read:
        progress.step("Truss")
        source, context = work / "truss", work / "context"
        unpacked, digest = await asyncio.gather(
            _in_thread(
                lambda stopped: archive.unpack(
                    request.archive, source, self._limits, stopped=stopped
                )
            ),
            asyncio.to_thread(bundle.archive_hash, request.archive),
        )
        said = await self._truss.context(source, context, development=request.development)
        read = config.read(said["parsed"], said["raw"])
        progress.total = 3 + bool(read.build_commands) + bool(read.weights)
        progress.done(
            f"{unpacked.files} files, {archive.size_text(unpacked.bytes)}, config.yaml read"
        )
        for line in said["warnings"]:
            progress.warn(line)
        for line in read.not_applied:
            progress.not_applied(line)
        await self._check_system(read, progress)
        return _Read(
            context,
            read,
            said["requirements_file_type"],
            said["truss_hash"],
            said["truss_signature"],
            digest,
        )

    async def _check_system(self, read: config.ModelConfig, progress: Progress) -> None:
        names = await asyncio.to_thread(system_packages.check, read.system_packages)
        if names:
            progress.line(f"System packages: installed on this machine: {', '.join(names)}")
        server = read.docker_server
        if server is not None and server.run_as_user_id is not None:
            progress.not_applied(
                "docker_server.run_as_user_id: the team's own user runs the server"
            )
        if server is not None and server.no_build:
            progress.not_applied("docker_server.no_build: the Truss's files are laid out as usual")
        if read.base_image is None:
            return
        prefix = self._images.find(read.base_image)
        if prefix is not None:
            progress.line(
                f"Image {read.base_image}: its mapped folder on this machine stands for it"
            )
        else:
            progress.not_applied(
                f"base_image {read.base_image}: no image is run; the model runs in "
                "this machine's system with the environment that config.yaml describes"
            )

    async def _environment(
        self, request: BuildRequest, read: _Read, steps: Steps
    ) -> environment.Environment:
        progress = steps.progress
        progress.step("Python environment")
        image = self._images.find(read.config.base_image) if read.config.base_image else None
        python = await self._interpreter(read.config, image, progress)
        recipe, notes = environment.read_recipe(
            read.context,
            python,
            request.user,
            read.file_type,
            image=image,
            needs_pip=bool(read.config.build_commands),
        )
        for note in notes:
            progress.line(f"Note: {note}")
        got, reused = await self._environments.get(recipe, steps, again=request.no_cache)
        how = "reused" if reused else "made"
        progress.done(f"{how} (py{python.short}, {got.packages} packages)")
        return got

    async def _interpreter(
        self, read: config.ModelConfig, image: Path | None, progress: Progress
    ) -> interpreters.Interpreter:
        if image is not None:
            for name in ("python3", "python"):
                found = await asyncio.to_thread(interpreters.probe, image / "bin" / name)
                if found is not None:
                    return found
        choice = interpreters.choose(
            await self._interpreters(), read.python, explicit=read.python_explicit
        )
        if choice.warning:
            progress.warn(choice.warning)
        return choice.interpreter

    async def _interpreters(self) -> tuple[interpreters.Interpreter, ...]:
        now = time.monotonic()
        if self._found is None or now - self._found[0] > _INTERPRETERS_FOR_S:
            self._found = (now, await asyncio.to_thread(interpreters.find))
        return self._found[1]

    async def _bundle(
        self,
        request: BuildRequest,
        read: _Read,
        found: environment.Environment,
        steps: Steps,
    ) -> bundle.Bundle:
        progress = steps.progress
        progress.step("Code")
        key = self._bundles.key(
            read.archive_hash, found, request.user, development=request.development
        )
        async with self._bundles.store.locked(key):
            made = None if request.no_cache else self._bundles.find(key)
            reused = made is not None
            if made is None:
                made = await self._bundles.make(
                    key,
                    read.context,
                    read.config,
                    found,
                    steps,
                    fill=lambda folder: self._external_data(read.config, folder, progress),
                    again=request.no_cache,
                )
        progress.done("reused" if reused else "laid out and compiled")
        return made

    async def _external_data(
        self, read: config.ModelConfig, folder: Path, progress: Progress
    ) -> None:
        if read.external_data:
            progress.begin(f"fetching external_data, {len(read.external_data)} files")
            await external_data.fetch(read.external_data, folder, self._fetcher, progress)

    async def _commands(
        self,
        request: BuildRequest,
        read: _Read,
        found: environment.Environment,
        made: bundle.Bundle,
        steps: Steps,
    ) -> tuple[runnable.Layer, ...]:
        if not read.config.build_commands:
            return ()
        progress = steps.progress
        progress.step("Build commands")
        sandboxed = self._engine.sandboxed
        if not sandboxed:
            progress.warn(
                "there is no sandbox: build_commands run as plain processes of this machine, and "
                "only what they write to paths that they name is kept apart from it"
            )
        job = commands.Job(
            read.config.build_commands,
            found,
            request.user,
            made.key,
            made.app,
            made.packages,
            sandboxed,
        )
        _, layers, reused = await self._build_commands.get(job, steps, again=request.no_cache)
        shown = {str(found.venv): "the Python environment"}
        names = sorted(shown.get(layer.target, layer.target) for layer in layers)
        kept = ", ".join(names) or "nothing"
        progress.done(f"{'reused' if reused else 'run'}, kept: {kept}")
        return layers

    async def _weights_of(
        self, request: BuildRequest, read: _Read, progress: Progress
    ) -> tuple[tuple[Path, str], ...]:
        if not read.config.weights:
            return ()
        progress.step("Weights")
        got, fetched = [], 0
        for source in read.config.weights:
            entry, reused = await self._weights.get(source, request.user, request.secret, progress)
            fetched += not reused
            got.append((weights.files_of(entry), source.mount))
        progress.done(f"{len(got)} sources, {fetched} fetched, {len(got) - fetched} from the cache")
        return tuple(got)

    @staticmethod
    def _check_server(parts: runnable.Parts) -> None:
        server = parts.config.docker_server
        if server is None:
            return
        inside = docker_server.Inside(
            path=runnable.program_path(parts),
            cwd=runnable.APP,
            on_host=lambda path: runnable.on_host(parts, path),
        )
        docker_server.check_start_command(server, inside, parts.config.base_image)

    async def _warm(self) -> None:
        try:
            version = await self._truss.ping()
        except (KingpostError, OSError) as error:
            _log.warning("truss worker could not be warmed error=%s", error)
        else:
            _log.info("truss worker is warm truss=%s", version)

    def _clean(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        for store in self.stores:
            store.remove_unfinished()
        for left in self._environments.downloads.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)


def _sizes_of(folder: Path) -> dict[Path, int]:
    if not folder.is_dir():
        return {}
    return {path: collecting.bytes_below(path) for path in folder.iterdir() if path.is_dir()}


def _with_warnings(result: Runnable, progress: Progress) -> Runnable:
    return msgspec.structs.replace(result, warnings=tuple(progress.warnings))


async def _in_thread(work: Callable[[Callable[[], bool]], archive.Unpacked]) -> archive.Unpacked:
    """Run it in a thread; cancelling tells it to stop, and waits until it has."""
    stop = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(work, stop.is_set))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        raise


def _for_people(error: OSError, step: str) -> KingpostError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(
            f"{step}: the disk of the data folder is full. Free space or delete deployments, "
            "then push again."
        )
    _log.error("build failed step=%s error=%s", step, error)
    return BuildFailedError(
        f"{step}: the machine answered: {error.strerror or type(error).__name__}."
    )
