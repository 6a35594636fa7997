"""Small Trusses for tests, written to a folder."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml

ECHO = """
    import os
    import time


    class Model:
        def __init__(self, **kwargs):
            self._secrets = kwargs.get("secrets") or {}
            self._data_dir = kwargs.get("data_dir")

        def load(self):
            print("echo is loaded", flush=True)

        def predict(self, model_input):
            if model_input.get("sleep"):
                time.sleep(model_input["sleep"])
            if model_input.get("secret"):
                return {"secret": self._secrets[model_input["secret"]]}
            if model_input.get("print"):
                print(model_input["print"], flush=True)
            if model_input.get("stream"):
                return self._stream(model_input["stream"])
            return {"version": VERSION, "echo": model_input, "pid": os.getpid(), "env": ENV}

        def _stream(self, count):
            for number in range(count):
                yield f"part {number}\\n"
                time.sleep(0.01)


    VERSION = "@version@"
    ENV = {k: v for k, v in os.environ.items() if k.startswith(("BT_", "TEST_"))}
"""


def write_truss(
    folder: Path,
    name: str,
    *,
    code: str = ECHO,
    version: str = "one",
    files: dict[str, str] | None = None,
    **config: Any,
) -> Path:
    """A Truss in `folder`, its code dedented, `@version@` replaced. Returns the folder."""
    settings: dict[str, Any] = {
        "model_name": name,
        "python_version": "py311",
        "resources": {"cpu": "500m", "memory": "512Mi"},
    }
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "__init__.py").touch()
    source = textwrap.dedent(code).lstrip().replace("@version@", version)
    (folder / "model" / "model.py").write_text(source)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | config))
    for path, content in (files or {}).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return folder
