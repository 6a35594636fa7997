from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kingpost.build.images import ImageTable
from kingpost.errors import BuildFailedError
from tests.support.building import Workshop, config, model, workshop

SERVER = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"path": self.path})
    def do_POST(self):
        size = int(self.headers["content-length"])
        self.answer({"path": self.path, "got": json.loads(self.rfile.read(size))})
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"""
FIELDS = {
    "server_port": 8000,
    "predict_endpoint": "/generate",
    "readiness_endpoint": "/health",
    "liveness_endpoint": "/live",
}


def docker_server(command: str, **fields: object) -> str:
    return config(docker_server={**FIELDS, "start_command": command}, **fields)


async def test_a_server_of_its_own(shop: Workshop) -> None:
    command = "A=1 exec python /app/data/server.py 8000"
    files = {
        "config.yaml": docker_server(command, base_image={"image": "some/image:1"}),
        "data/server.py": SERVER,
    }
    runnable = await shop.build(files)
    assert runnable.port == 8000
    assert runnable.rewrites["/v1/models/model:predict"] == "/generate"
    assert any("base_image some/image:1" in line for line in shop.lines)
    async with shop.serving(runnable) as replica:
        assert await replica.predict({"a": 1}) == {"path": "/generate", "got": {"a": 1}}


async def test_a_program_that_only_an_image_has(shop: Workshop) -> None:
    files = {"config.yaml": docker_server("vllm serve x", base_image={"image": "vllm/vllm:1"})}
    with pytest.raises(BuildFailedError, match=r"'vllm'.*vllm/vllm:1.*container engine"):
        await shop.build(files)


def install_image(prefix: Path) -> None:
    """A folder such as an environment that someone installed by hand."""
    (prefix / "bin").mkdir(parents=True)
    packages = prefix / f"lib/python3.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (packages / "from_image.py").write_text("NAME = 'image'\n")
    (prefix / "bin/python3").symlink_to(Path(sys.executable).resolve())
    program = prefix / "bin/serve-it"
    program.write_text('#!/bin/sh\nexec python3 /app/data/server.py "$1"\n')
    program.chmod(0o755)


async def test_a_mapped_folder_stands_for_an_image(shop: Workshop, tmp_path: Path) -> None:
    prefix = tmp_path / "installed"
    install_image(prefix)
    ImageTable(shop.data).map("mapped/image", prefix)
    image = {"image": "mapped/image:7"}
    files = {
        "config.yaml": docker_server("serve-it 8000", base_image=image),
        "data/server.py": SERVER,
    }
    async with shop.serving(await shop.build(files)) as replica:
        assert (await replica.predict({}))["path"] == "/generate"
    files = {
        "config.yaml": config(base_image=image),
        "model/model.py": "import from_image\n" + model("from_image.NAME"),
    }
    async with shop.serving(await shop.build(files)) as replica:
        assert (await replica.predict({}))["answer"] == "image"


COMMANDS = [
    "pip install --quiet six==1.15.0",
    "mkdir -p /opt/tool/bin /models && echo weights > /models/w",
    "printf '#!/bin/sh\\necho tool\\n' > /opt/tool/bin/tool && chmod +x /opt/tool/bin/tool",
    "echo note > note.txt; echo home > $HOME/home.txt; echo lib > /usr/local/share/lib.txt",
    "echo lost > /tmp/lost",
]
READER = """
import pathlib, subprocess, six
class Model:
    def __init__(self, **kwargs): pass
    def load(self): pass
    def predict(self, request):
        texts = [pathlib.Path(p).expanduser().read_text().strip() for p in
            ("/models/w", "/app/note.txt", "~/home.txt", "/usr/local/share/lib.txt")]
        tool = subprocess.run(["/opt/tool/bin/tool"], capture_output=True, text=True).stdout
        pathlib.Path("/models/w").write_text("mine")
        lost = pathlib.Path("/tmp/lost").exists()
        return [VERSION, six.__version__, *texts, tool.strip(), lost]
"""


async def test_what_build_commands_leave_is_kept_and_shared(shop: Workshop) -> None:
    for version in (1, 2):
        files = {
            "config.yaml": config(build_commands=COMMANDS),
            "model/model.py": READER.replace("VERSION", str(version)),
        }
        runnable = await shop.build(files)
        how = "reused" if version == 2 else "run"
        kept = "kept: /app, /models, /opt, /root, /usr/local, the Python environment"
        told = [line for line in shop.lines if "Build commands" in line]
        assert f"{how}, {kept} (" in told[-1], told
        for _ in range(2):
            async with shop.serving(runnable) as replica:
                expected = [version, "1.15.0", "weights", "note", "home", "lib", "tool", False]
                assert await replica.predict({}) == expected


async def test_commands_that_read_the_code_run_again_when_it_changes(shop: Workshop) -> None:
    commands = ["python model/prepare.py > /app/prepared.txt"]
    for answer in ("one", "two"):
        files = {
            "config.yaml": config(build_commands=commands),
            "model/prepare.py": f"print('{answer}')\n",
            "model/model.py": model("open('/app/prepared.txt').read().strip()"),
        }
        async with shop.serving(await shop.build(files)) as replica:
            assert (await replica.predict({}))["answer"] == answer


async def test_a_command_that_fails_is_named(shop: Workshop) -> None:
    files = {
        "config.yaml": config(build_commands=["true", "echo why; exit 3"]),
        "model/model.py": model("1"),
    }
    with pytest.raises(BuildFailedError, match="command 2 of 2 ended with exit code 3") as caught:
        await shop.build(files)
    assert "why" in caught.value.message


def there(*paths: str | Path) -> list[str]:
    return [str(path) for path in paths if os.path.lexists(path)]


async def test_commands_can_not_touch_the_machine(shop: Workshop, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    tries = [
        f"echo x > {target} || true",
        "echo x > /etc/x || true",
        "echo x > /usr/x || true",
        "rm -rf /usr/local/* || true; ls /proc/1/root/home || true",
    ]
    files = {"config.yaml": config(build_commands=tries), "model/model.py": model("1")}
    await shop.build(files)
    assert there(target, "/etc/x", "/usr/x", "/usr/local/bin") == ["/usr/local/bin"]


async def test_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.hub import hub

    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "big.txt").write_text("fetched")
    with hub(folder) as served:
        monkeypatch.setenv("KINGPOST_FETCH_ALLOW", served.url.removeprefix("http://"))
        async with workshop(tmp_path / "data") as shop:
            item = {"url": f"{served.url}/big.txt", "local_data_path": "sub/big.txt"}
            files = {
                "config.yaml": config(external_data=[item]),
                "model/model.py": model("open('/app/data/sub/big.txt').read()"),
            }
            async with shop.serving(await shop.build(files)) as replica:
                assert (await replica.predict({}))["answer"] == "fetched"
            missing = {**item, "url": f"{served.url}/none.txt"}
            with pytest.raises(BuildFailedError, match="404"):
                await shop.build({**files, "config.yaml": config(external_data=[missing])})
