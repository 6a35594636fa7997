from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kingpost.build.steps import uv_tool
from kingpost.errors import BuildFailedError, BuildStoppedError, InvalidInputError
from kingpost.settings import SandboxMode
from tests.support.archives import file, tar_bytes
from tests.support.building import Workshop, config, model, workshop


async def test_a_pushed_truss_answers_and_a_code_change_reuses_its_environment(
    shop: Workshop,
) -> None:
    files = {
        "config.yaml": config(
            requirements=["six"],
            environment_variables={"GREETING": "hi"},
            model_metadata={"tags": ["a"]},
        ),
        "model/__init__.py": "",
        "model/model.py": "import os, six, helper\n" + model("os.environ['GREETING']+helper.X"),
        "packages/helper.py": "X = ' one'\n",
        "data/note.txt": "data",
    }
    first = await shop.build(files)
    async with shop.serving(first) as replica:
        assert await replica.predict({"a": 1}) == {"answer": "hi one", "request": {"a": 1}}
    assert shop.lines[0].startswith("[1/3] Truss: 5 files")
    assert first.truss_hash
    assert first.truss_signature.startswith("{")

    second = await shop.build({**files, "packages/helper.py": "X = ' two'\n"})
    assert "[2/3] Python environment: reused" in "\n".join(shop.lines)
    assert second.environment_key == first.environment_key
    assert second.bundle_key != first.bundle_key
    async with shop.serving(second) as replica:
        assert (await replica.predict({}))["answer"] == "hi two"

    again = await shop.build(files)
    assert again.bundle_key == first.bundle_key
    assert "[3/3] Code: reused" in "\n".join(shop.lines)


async def test_the_app_folder_is_writable_private_and_thrown_away(shop: Workshop) -> None:
    code = """
import pathlib
class Model:
    def __init__(self, **kwargs):
        self.data_dir = kwargs["data_dir"]
    def load(self):
        self.seen = pathlib.Path("/app/data/note.txt").read_text()
        pathlib.Path("/app/data/note.txt").write_text("changed")
        pathlib.Path("model/new.txt").write_text("new")
    def predict(self, request):
        return [self.seen, str(self.data_dir), pathlib.Path("/app/data/note.txt").read_text()]
"""
    files = {"config.yaml": config(), "model/model.py": code, "data/note.txt": "first"}
    runnable = await shop.build(files)
    for _ in range(2):
        async with shop.serving(runnable) as replica:
            assert await replica.predict({}) == ["first", "data", "changed"]


async def test_names_of_ones_own(shop: Workshop) -> None:
    files = {
        "config.yaml": config(
            model_module_dir="src",
            model_class_filename="main_model.py",
            model_class_name="Mine",
            data_dir="assets",
            bundled_packages_dir="libs",
            resources={"cpu": "500m", "memory": "1Gi"},
        ),
        "src/main_model.py": "import lib_of_mine\n"
        + model("open('data/x').read() + lib_of_mine.Y").replace("class Model", "class Mine"),
        "assets/x": "asset ",
        "libs/lib_of_mine.py": "Y = 'lib'\n",
    }
    runnable = await shop.build(files)
    assert (runnable.cpu_millis, runnable.memory_bytes) == (500, 1024**3)
    async with shop.serving(runnable) as replica:
        assert (await replica.predict({}))["answer"] == "asset lib"


@pytest.mark.parametrize(
    "extra",
    [
        {"config.yaml": config(requirements_file="deps.txt"), "deps.txt": "six==1.16.0\n"},
        {
            "config.yaml": config(requirements_file="pyproject.toml"),
            "pyproject.toml": '[project]\nname = "x"\nversion = "1"\n'
            'requires-python = ">=3.9"\ndependencies = ["six==1.16.0"]\n',
        },
    ],
    ids=["pip", "pyproject"],
)
async def test_requirements_files(shop: Workshop, extra: dict[str, str]) -> None:
    code = {"model/model.py": "import six\n" + model("six.__version__")}
    runnable = await shop.build({**code, **extra})
    async with shop.serving(runnable) as replica:
        assert (await replica.predict({}))["answer"] == "1.16.0"


async def test_a_uv_lock(shop: Workshop, tmp_path: Path) -> None:
    project = (
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.9"\n'
        'dependencies = ["six==1.16.0"]\n'
    )
    (tmp_path / "pyproject.toml").write_text(project)
    process = await asyncio.create_subprocess_exec(uv_tool(), "lock", "--quiet", cwd=tmp_path)
    assert await process.wait() == 0
    files = {
        "config.yaml": config(requirements_file="uv.lock"),
        "pyproject.toml": project,
        "uv.lock": (tmp_path / "uv.lock").read_text(),
        "model/model.py": "import six\n" + model("six.__version__"),
    }
    async with shop.serving(await shop.build(files)) as replica:
        assert (await replica.predict({}))["answer"] == "1.16.0"


async def test_no_cache_makes_a_new_environment_beside_the_old_one(shop: Workshop) -> None:
    files = {"config.yaml": config(), "model/model.py": model("1")}
    old = await shop.build(files)
    new = await shop.build(files, no_cache=True)
    assert old.environment_key is not None
    assert new.environment_key != old.environment_key
    assert (shop.data.environments / old.environment_key).is_dir()
    assert (await shop.build(files)).environment_key == new.environment_key


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"requirements": ["no-such-package-kingpost-xyz"]}, "no-such-package-kingpost-xyz"),
        ({"python_version": "py39", "requirements": ["numpy==2.3.0"]}, "Python environment"),
        ({"system_packages": ["no-such-system-package"]}, "apt-get install -y no-such"),
        ({"resources": {"cpu": "many"}}, "resources.cpu"),
        ({"python_version": "py27"}, "python_version"),
        ({"trt_llm": {"build": {"base_model": "llama"}}}, "trt_llm"),
    ],
)
async def test_what_can_not_be_built_is_said_in_words(
    shop: Workshop, fields: dict[str, object], words: str
) -> None:
    with pytest.raises(BuildFailedError, match=words) as caught:
        await shop.build({"config.yaml": config(**fields), "model/model.py": model("1")})
    assert str(shop.data.root) not in caught.value.message
    assert "Traceback" not in caught.value.message


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n", "&a [*a, *a]: [\n", "model_name: {{\n"])
async def test_a_config_that_is_none(shop: Workshop, text: str) -> None:
    with pytest.raises(BuildFailedError, match=r"config\.yaml"):
        await shop.build({"config.yaml": text})
    good = await shop.build({"config.yaml": config(), "model/model.py": model("1")})
    assert good.argv


async def test_an_archive_that_is_none(shop: Workshop) -> None:
    path = shop.data.root / "bad.tar"
    for data in (b"no tar", tar_bytes(file("../x")), tar_bytes(file("config.yaml"))[:100]):
        path.write_bytes(data)
        with pytest.raises(InvalidInputError):
            await shop.build_archive(path)
    path.write_bytes(tar_bytes(file("readme.txt")))
    with pytest.raises(BuildFailedError, match=r"no config\.yaml"):
        await shop.build_archive(path)
    assert list((shop.data.cache / "builds").iterdir()) == []


async def test_a_build_past_its_deadline_is_stopped_and_leaves_nothing(shop: Workshop) -> None:
    files = {"config.yaml": config(build_commands=["sleep 600 # long"])}
    with pytest.raises(BuildStoppedError, match="deadline"):
        await shop.build({**files, "model/model.py": model("1")}, deadline_s=8)
    assert list((shop.data.cache / "builds").iterdir()) == []
    assert not list(shop.data.layers.glob("*.new-*"))


async def test_a_build_can_be_stopped(shop: Workshop) -> None:
    files = {"config.yaml": config(build_commands=["echo begun; sleep 600"])}
    task = asyncio.create_task(shop.build({**files, "model/model.py": model("1")}))
    await shop.said("  begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((shop.data.cache / "builds").iterdir()) == []
    assert not list(shop.data.layers.glob("*.new-*"))


async def test_two_builds_of_one_recipe_share_one_environment(shop: Workshop) -> None:
    before = len(list(shop.data.environments.iterdir()))
    one, two = await asyncio.gather(
        *(
            shop.build({"config.yaml": config(requirements=["six<1.17"]), "model/model.py": code})
            for code in (model("1"), model("2"))
        )
    )
    assert one.environment_key == two.environment_key
    assert len(list(shop.data.environments.iterdir())) == before + 1


async def test_without_a_sandbox_paths_are_told_in_the_machines(tmp_path: Path) -> None:
    async with workshop(tmp_path / "data", SandboxMode.OFF) as shop:
        files = {
            "config.yaml": config(),
            "model/model.py": "import helper\n" + model("helper.X"),
            "packages/helper.py": "X = 'plain'\n",
        }
        async with shop.serving(await shop.build(files)) as replica:
            assert (await replica.predict({}))["answer"] == "plain"


async def test_validation_is_truss_own(shop: Workshop) -> None:
    good = await shop.builder.validate({"model_name": "m"})
    assert good.errors == ()
    assert good.parsed is not None
    bad = await shop.builder.validate({"python_version": "py99", "resources": {"cpu": "x"}})
    assert len(bad.errors) == 2
    assert bad.errors[1] == "resources.cpu: Invalid cpu specification x."
