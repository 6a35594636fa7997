"""The code of a Truss as replicas see it: `/app` and `/packages`, immutable and shared."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kingpost.build.config import ModelConfig
from kingpost.build.environment import Environment
from kingpost.build.steps import Steps
from kingpost.build.store import Store, key_of
from kingpost.engine.base import Bind
from kingpost.settings import DataFolder

_RECIPE = 1


@dataclass(frozen=True)
class Bundle:
    """`packages` and `control` (the control server of development deployments) may be absent."""

    key: str
    app: Path
    packages: Path | None
    control: Path | None


def archive_hash(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bundles:
    def __init__(self, data: DataFolder) -> None:
        self.store = Store(data.bundles)

    def key(self, archive: str, environment: Environment, user: str, *, development: bool) -> str:
        """Bytecode lies beside the code, so the interpreter's minor version belongs to the key."""
        return key_of(_RECIPE, archive, environment.interpreter.short, user, development)

    def find(self, key: str) -> Bundle | None:
        entry = self.store.find(key)
        return _bundle(entry.root) if entry is not None else None

    async def make(
        self,
        key: str,
        context: Path,
        config: ModelConfig,
        environment: Environment,
        steps: Steps,
        *,
        fill: Callable[[Path], Awaitable[None]],
        again: bool = False,
    ) -> Bundle:
        """From truss's build context, whose files are moved out of it.

        `fill` may put further files into the data folder.
        """
        work, final = self.store.begin(key, again=again)
        try:
            arrange(context, work, config)
            await fill(work / "app" / "data")
            await self._compile(work, final, environment, steps)
            return _bundle(self.store.publish(work, final, {}).root)
        except BaseException:
            self.store.discard(work)
            raise

    @staticmethod
    async def _compile(work: Path, final: Path, environment: Environment, steps: Steps) -> None:
        """Bytecode for faster starts. Compiling runs nothing; a syntax error is only reported."""
        targets = [name for name in ("app", "packages", "control") if (work / name).is_dir()]
        binds = [Bind(str(work / name), str(final / name), writable=True) for name in targets]
        script = (
            "import compileall,sys\n"
            "for f in sys.argv[1:]: compileall.compile_dir(f,quiet=1,maxlevels=32,workers=1)"
        )
        await steps.run(
            "compiling bytecode",
            [environment.python, "-I", "-S", "-c", script, *(final / name for name in targets)],
            env={},
            binds=[*environment.binds, *binds],
            network=False,
        )


def arrange(context: Path, target: Path, config: ModelConfig) -> None:
    """Lay the parts of a build context out as truss's image does: below `app` and `packages`.

    Unlike the image, a `model_module_dir` keeps its name, which is where the server looks for it.
    """
    app = target / "app"
    server = context / "server"
    if config.docker_server is None:
        server.rename(app)
    else:
        app.mkdir()
    _move(context / config.data_dir, app / "data")
    _move(context / config.model_module_dir, app / config.model_module_dir)
    shutil.copyfile(context / "config.yaml", app / "config.yaml")
    _move(context / config.packages_dir, target / "packages")
    if (context / "control").is_dir():
        _move(context / "control", target / "control")
        (target / "packages").mkdir(exist_ok=True)
    for source in config.weights:
        if source.mount.startswith("/app/"):
            (app / source.mount.removeprefix("/app/")).mkdir(parents=True, exist_ok=True)


def _move(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.move)
    else:
        source.rename(target)


def _bundle(root: Path) -> Bundle:
    packages, control = root / "packages", root / "control"
    return Bundle(
        key=root.name,
        app=root / "app",
        packages=packages if packages.is_dir() else None,
        control=control if control.is_dir() else None,
    )
