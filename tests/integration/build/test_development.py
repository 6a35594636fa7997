from __future__ import annotations

from kingpost.settings import SandboxMode
from tests.support.building import Workshop, config, model, workshop


async def patched(shop: Workshop) -> None:
    files = {
        "config.yaml": config(),
        "model/__init__.py": "",
        "model/model.py": model("'before'"),
    }
    runnable = await shop.build(files, development=True)
    assert runnable.control_server
    async with shop.serving(runnable) as replica:
        assert (await replica.predict({}))["answer"] == "before"
        assert (await replica.get("/control/truss_hash"))[1] == {"result": runnable.truss_hash}
        changes = [
            ("model_code", {"action": "UPDATE", "path": "model.py", "content": CODE}),
            ("package", {"action": "ADD", "path": "helper.py", "content": "X = 'after '"}),
            ("python_requirement", {"action": "ADD", "requirement": "six==1.16.0"}),
        ]
        patch = {
            "hash": "new",
            "prev_hash": runnable.truss_hash,
            "patches": [{"type": kind, "body": body} for kind, body in changes],
        }
        answer = await replica.post("/control/patch", patch)
        assert "error" not in answer, answer
        await replica.until_ready()
        assert (await replica.predict({}))["answer"] == "after 1.16.0"
    async with shop.serving(runnable) as replica:
        assert (await replica.predict({}))["answer"] == "before"


CODE = "import helper, six\n" + model("helper.X + six.__version__")


async def test_a_development_deployment_takes_patches_and_starts_afresh(shop: Workshop) -> None:
    await patched(shop)
    assert shop.lines


async def test_it_does_so_without_a_sandbox_too(shop: Workshop) -> None:
    async with workshop(shop.data.root.parent / "plain", SandboxMode.OFF) as plain:
        await patched(plain)
        assert plain.lines
