"""Python environments for models: made in the sandbox with uv, cached by what defines them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kingpost.build.interpreters import Interpreter
from kingpost.build.steps import Steps, index_settings, shown, uv_tool
from kingpost.build.store import Store, key_of
from kingpost.engine.base import Bind
from kingpost.settings import DataFolder

_RECIPE = 1
_OLD_NUMPY = re.compile(r"^numpy>=([\d.]+),<2(\.0)*(?=\s|$)")
_NUMPY_2_SINCE = (3, 13)
_SELDOM_USED = r"/(tests?|Cython|pip|f2py)/"
_COMPILE = (
    "import compileall,os,re,sys\n"
    "compileall.compile_dir(sys.argv[1],quiet=2,maxlevels=32,rx=re.compile(sys.argv[2]),"
    "workers=min(4,os.cpu_count() or 1))"
)
"""Compiles what a server is likely to import, for faster starts, and runs none of it."""
_FROM_FILE = {"pip": "user_requirements.txt", "pyproject": "pyproject.toml", "uv_lock": "uv.lock"}


@dataclass(frozen=True)
class Recipe:
    """All that defines an environment. Texts are whole files; `image` a mapped image's prefix.

    `tools` are installed beside what was asked for: `pip`, which code and commands expect.
    """

    interpreter: Interpreter
    user: str
    requirements: str
    constraints: str
    file_type: str = "not_provided"
    user_files: tuple[tuple[str, str], ...] = ()
    image: Path | None = None
    tools: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        python = self.interpreter
        return key_of(
            _RECIPE,
            [python.full, python.implementation, str(python.executable), str(python.prefix)],
            self.user,
            self.requirements,
            self.constraints,
            self.file_type,
            self.user_files,
            str(self.image or ""),
            self.tools,
        )


@dataclass(frozen=True)
class Environment:
    """`venv` is bound at the same path inside as outside, `binds` also shows its interpreter."""

    key: str
    venv: Path
    packages: int
    interpreter: Interpreter
    image: Path | None = None

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def runtime_binds(self) -> list[Bind]:
        return _needed(self.interpreter, self.image)

    @property
    def binds(self) -> list[Bind]:
        return [*self.runtime_binds, Bind(str(self.venv), str(self.venv))]


def read_recipe(
    context: Path,
    interpreter: Interpreter,
    user: str,
    file_type: str,
    *,
    image: Path | None = None,
    needs_pip: bool = False,
) -> tuple[Recipe, list[str]]:
    """The recipe that truss wrote into its build context, and what was changed in it, in words."""
    requirements, notes = server_requirements(
        _text(context / "requirements.txt"), interpreter.version[:2]
    )
    names = ["pyproject.toml", "uv.lock"] if file_type == "uv_lock" else [_FROM_FILE.get(file_type)]
    files = tuple((name, _text(context / name)) for name in names if name)
    recipe = Recipe(
        interpreter,
        user,
        requirements,
        _text(context / "constraints.txt"),
        file_type,
        files,
        image,
        ("pip",) if needs_pip or files or _asks_anything(requirements) else (),
    )
    return recipe, notes


def server_requirements(text: str, python: tuple[int, int]) -> tuple[str, list[str]]:
    """Truss's list as this Python needs it, and what was changed in words.

    From Python 3.13 on there are no wheels of numpy 1.x, so the server's own upper bound gives way
    to that of truss's constraints (below 3); a numpy that the user names is left alone.
    """
    notes: list[str] = []
    lines = []
    for line in text.splitlines():
        if python >= _NUMPY_2_SINCE and _OLD_NUMPY.match(line):
            lines.append(_OLD_NUMPY.sub(r"numpy>=\1,<3", line))
            notes.append("numpy 1.x has no wheels for this Python: numpy 2 is installed instead.")
            continue
        lines.append(line)
    return "\n".join(lines) + "\n", notes


class Environments:
    """Finds or makes them, one at a time for each recipe."""

    def __init__(self, data: DataFolder) -> None:
        self.store = Store(data.environments)
        self.downloads = data.cache / "uv"
        """What installers keep, in a folder for each team."""

    async def get(
        self, recipe: Recipe, steps: Steps, *, again: bool = False
    ) -> tuple[Environment, bool]:
        """The environment, and whether it was there already."""
        async with self.store.locked(recipe.key):
            entry = None if again else self.store.find(recipe.key)
            reused = entry is not None
            if entry is None:
                work, final = self.store.begin(recipe.key, again=again)
                try:
                    count = await self._make(recipe, steps, work, final, again=again)
                    entry = self.store.publish(
                        work, final, {"python": recipe.interpreter.full, "packages": count}
                    )
                except BaseException:
                    self.store.discard(work)
                    raise
        packages = int(entry.manifest.get("packages", 0))
        environment = Environment(
            entry.key, entry.root / "venv", packages, recipe.interpreter, recipe.image
        )
        return environment, reused

    async def _make(
        self, recipe: Recipe, steps: Steps, work: Path, final: Path, *, again: bool
    ) -> int:
        uv = uv_tool()
        made, venv = work / "venv", final / "venv"
        lists = work / "requirements"
        for folder in (made, lists):
            folder.mkdir()
        for name, text in [
            ("requirements.txt", recipe.requirements),
            ("constraints.txt", recipe.constraints),
            *recipe.user_files,
        ]:
            (lists / name).write_text(text)
        env, binds = self.settings(recipe.user, no_cache=again)
        binds = [
            *binds,
            *_needed(recipe.interpreter, recipe.image),
            Bind(str(made), str(venv), writable=True),
            Bind(str(lists), str(final / "requirements"), writable=True),
        ]
        at = str(final / "requirements")
        python = venv / "bin" / "python"

        async def run(what: str, *argv: str | Path) -> None:
            await steps.run(what, argv, env=env, cwd=at, binds=binds)

        make: list[str | Path] = [uv, "venv", "--quiet", "--relocatable", "--allow-existing"]
        make += ["--no-project", "--python", recipe.interpreter.executable]
        if recipe.image:
            make.append("--system-site-packages")
        await run("making the environment", *make, venv)
        if recipe.image:
            _show_image_packages(recipe.image, made)
        for what, words in _installs(recipe, uv, python):
            await run(what, *words)
        await run(
            "compiling bytecode", python, "-I", "-S", "-c", _COMPILE, venv / "lib", _SELDOM_USED
        )
        return len(list(made.glob("lib/python*/site-packages/*.dist-info")))

    def settings(self, user: str, *, no_cache: bool = False) -> tuple[dict[str, str], list[Bind]]:
        """Variables and binds of a command that installs packages for this team."""
        cache = self.downloads / user
        cache.mkdir(parents=True, exist_ok=True)
        index, index_binds = index_settings()
        env = {
            "UV_HTTP_TIMEOUT": "300",
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            **index,
            "UV_CACHE_DIR": str(cache),
            "UV_LINK_MODE": "copy",
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            **({"UV_NO_CACHE": "1"} if no_cache else {}),
        }
        return env, [*index_binds, *shown(uv_tool()), Bind(str(cache), str(cache), writable=True)]


def _installs(recipe: Recipe, uv: Path, python: Path) -> list[tuple[str, Sequence[str | Path]]]:
    """Truss's own order: the user's file first, then the server's list with `requirements`."""
    install: list[str | Path] = [uv, "pip", "install"]
    install += ["--python", python]
    constrained = ["-c", "constraints.txt"]
    steps: list[tuple[str, Sequence[str | Path]]] = []
    if recipe.file_type == "pip":
        words = [*install, "-r", "user_requirements.txt", *constrained]
        steps.append(("installing requirements_file", words))
    elif recipe.file_type == "pyproject":
        steps.append(("installing pyproject.toml", [*install, "-r", "pyproject.toml"]))
    elif recipe.file_type == "uv_lock":
        export: list[str | Path] = [uv, "export", "--frozen", "--quiet", "--no-emit-project"]
        export += ["--format", "requirements-txt", "--output-file", "locked.txt"]
        steps.append(("reading uv.lock", export))
        steps.append(("installing uv.lock", [*install, "-r", "locked.txt"]))
    words = [*recipe.tools]
    if _asks_anything(recipe.requirements):
        words += ["-r", "requirements.txt", *constrained]
    if words:
        steps.append(("installing requirements", [*install, *words]))
    return steps


def _asks_anything(requirements: str) -> bool:
    lines = (line.strip() for line in requirements.splitlines())
    return any(line and not line.startswith("#") for line in lines)


def _needed(interpreter: Interpreter, image: Path | None) -> list[Bind]:
    """What of the machine an environment leans on: its interpreter, and a mapped image."""
    folders = [interpreter.prefix.resolve(), *([image] if image else [])]
    return shown(*folders)


def _show_image_packages(image: Path, venv: Path) -> None:
    """A path file, since `image` may be a virtual environment, which another can't build on."""
    for theirs in image.glob("lib/python*/site-packages"):
        for ours in venv.glob(f"lib/{theirs.parent.name}/site-packages"):
            (ours / "kingpost_image.pth").write_text(f"{theirs}\n")


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
