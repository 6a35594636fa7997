"""Runs inside the pinned truss environment: JSON lines in, JSON lines out, nothing else.

It only parses and copies data and never imports a user's code. Standard library and truss only:
the rest of Kingpost is not installed there.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import logging
import os
import re
import resource
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_CONFIG_VALUES = 1_000_000
_WARNS_OF_CONFIGS = ("truss_config.py", "pydantic/main.py")
_MEMORY_BYTES = 6 * 1024**3


class RefusedError(Exception):
    """What the user gave can't be used; the message is for the user."""


def ping(_: dict[str, Any]) -> dict[str, Any]:
    return {"version": importlib.metadata.version("truss")}


def validate(args: dict[str, Any]) -> dict[str, Any]:
    """Truss's own opinion of a config dict."""
    from truss.base.truss_config import TrussConfig

    with _collected_warnings() as said:
        try:
            parsed = TrussConfig.from_dict(dict(args["config"])).to_dict(verbose=True)
        except (ValueError, TypeError, AttributeError) as error:
            return {"errors": _readable(error), "warnings": said, "parsed": None}
    return {"errors": [], "warnings": said, "parsed": parsed}


def context(args: dict[str, Any]) -> dict[str, Any]:
    """Write truss's build context of `truss_dir` to `out_dir` and say what was read.

    Files of the Truss become hard links where the file system allows it. Weights and the legacy
    `model_cache` are left to the caller: truss would ask the network for them.
    """
    from truss.truss_handle.patch import signature
    from truss.truss_handle.patch.hash import directory_content_hash

    truss_dir, out_dir = Path(args["truss_dir"]), Path(args["out_dir"])
    raw = _raw_config(truss_dir / "config.yaml")
    with _collected_warnings() as said:
        try:
            parsed, file_type, prepare = _image_builder(truss_dir, bool(args.get("development")))
        except (ValueError, TypeError, AttributeError) as error:
            raise RefusedError("config.yaml: " + "; ".join(_readable(error))) from error
        if parsed.get("trt_llm"):
            raise RefusedError(
                "config.yaml: `trt_llm` needs Baseten's TensorRT-LLM images, which this engine "
                "does not have. Serve the model with `docker_server` or a model class instead."
            )
        try:
            signed = signature.calc_truss_signature(truss_dir).to_dict()
            hashed = directory_content_hash(truss_dir)
            with _links_instead_of_copies(truss_dir):
                prepare(out_dir)
            _drop_default_index(out_dir / "requirements.txt")
        except (ValueError, OSError) as error:
            if _is_full(error):
                raise
            said_of = [_without_folder(line, truss_dir) for line in _readable(error)]
            raise RefusedError("; ".join(said_of)) from error
    return {
        "raw": raw,
        "parsed": parsed,
        "requirements_file_type": file_type,
        "truss_hash": hashed,
        "truss_signature": json.dumps(signed),
        "warnings": said,
    }


def _drop_default_index(requirements: Path) -> None:
    """Truss's own list names the default index, which would hide the operator's; a user's stays."""
    import truss

    own = Path(truss.__file__).parent / "templates" / "server" / "requirements.txt"
    defaults = [line for line in own.read_text().splitlines() if line.startswith("-i ")]
    if not requirements.exists():
        return
    lines = requirements.read_text().splitlines(keepends=True)
    for default in defaults:
        found = [line for line in lines if line.strip() == default]
        if found:
            lines.remove(found[0])
    requirements.unlink()
    requirements.write_text("".join(lines))


def _image_builder(
    truss_dir: Path, development: bool
) -> tuple[dict[str, Any], str, Callable[[Path], None]]:
    from truss.base.truss_config import ModelCache
    from truss.contexts.image_builder.serving_image_builder import ServingImageBuilder

    class Builder(ServingImageBuilder):  # type: ignore[misc]
        """Truss's own, without the network and without a second copy of everything."""

        def read(self) -> tuple[dict[str, Any], str]:
            config = self._spec.config
            parsed = config.to_dict(verbose=True)
            config.model_cache = ModelCache([])
            config.live_reload = development
            return parsed, config.requirements_file_type.value

        def _setup_build_hash_directory(self, build_dir: Path) -> None:
            pass

    builder = Builder(truss_dir)
    return (*builder.read(), builder.prepare_image_build_dir)


_OPERATIONS = {"ping": ping, "validate": validate, "context": context}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    from truss.contexts.image_builder import serving_image_builder  # noqa: F401
    from truss.truss_handle.patch import signature  # noqa: F401

    for line in sys.stdin:
        answers.write(json.dumps(_answer(line)) + "\n")
        answers.flush()


def _answer(line: str) -> dict[str, Any]:
    number: Any = None
    try:
        asked = json.loads(line)
        number = asked["id"]
        return {"id": number, "result": _OPERATIONS[asked["op"]](asked.get("args", {}))}
    except RefusedError as error:
        return {"id": number, "refused": str(error)}
    except MemoryError:
        return {"id": number, "refused": "config.yaml expands to more memory than is allowed."}
    except RecursionError:
        return {"id": number, "refused": "config.yaml is nested too deeply."}
    except Exception as error:
        if _is_full(error):
            return {"id": number, "full": True}
        logging.getLogger(__name__).exception("unexpected error")
        return {"id": number, "failed": f"{type(error).__name__}: {error}"}


def _is_full(error: Exception) -> bool:
    """Whether it says that no space is left; copying many files wraps it as text."""
    if not isinstance(error, OSError):
        return False
    if error.errno is not None:
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def _raw_config(path: Path) -> dict[str, Any]:
    import yaml
    from truss.util.yaml_utils import (
        safe_load_yaml_with_no_duplicates,
    )

    if not path.is_file() or path.is_symlink():
        raise RefusedError(
            "The archive has no config.yaml at its top. Push the folder that holds config.yaml."
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise RefusedError(f"config.yaml is larger than {MAX_CONFIG_BYTES // 1024**2} MiB.")
    try:
        with path.open(encoding="utf-8") as file:
            raw = safe_load_yaml_with_no_duplicates(file)
    except (yaml.YAMLError, ValueError) as error:
        raise RefusedError(f"config.yaml is not valid YAML: {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise RefusedError(
            f"config.yaml must hold keys and values, and holds a {type(raw).__name__}."
        )
    if _expanded(raw, {}) > MAX_CONFIG_VALUES:
        raise RefusedError("config.yaml expands to more values than is allowed.")
    return json.loads(json.dumps(raw, default=str))  # type: ignore[no-any-return]


def _expanded(value: Any, known: dict[int, int]) -> int:
    """How many values it has once every alias is written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_CONFIG_VALUES + 1  # what holds itself has no end
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(value)]


def _readable(error: Exception) -> list[str]:
    """One sentence per problem, `field.path: what is wrong`, without pydantic's ornaments."""
    problems = getattr(error, "errors", None)
    if not callable(problems):
        return [str(error)]
    lines = []
    for problem in problems():
        where = ".".join(str(part) for part in problem.get("loc", ()))
        what = re.sub(r"^(Value|Assertion) error, ", "", str(problem.get("msg", "invalid")))
        lines.append(f"{where}: {what}" if where else what)
    return lines


def _without_folder(message: str, folder: Path) -> str:
    return message.replace(f"{folder}/", "").replace(str(folder), "the Truss folder")


@contextlib.contextmanager
def _links_instead_of_copies(root: Path) -> Iterator[None]:
    """Lets truss link files of the Truss below `root` where it would copy them.

    Files at the top are copied, since truss writes some of these names itself; a target that is
    there goes first, so that nothing is ever written through a link.
    """
    from truss.util import path as truss_path

    inside = str(root.resolve()) + os.sep

    def copy(source: str, target: str) -> str:
        if os.path.lexists(target):
            os.unlink(target)
        real = os.path.realpath(source)
        if real.startswith(inside) and os.sep in os.path.relpath(source, root):
            with contextlib.suppress(OSError):
                os.link(real, target)
                return target
        return str(shutil.copy2(source, target))

    truss_path.shutil = types.SimpleNamespace(copy2=copy, rmtree=shutil.rmtree)
    try:
        yield
    finally:
        truss_path.shutil = shutil


@contextlib.contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logging.getLogger().addHandler(collector)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
            of_config = [one for one in caught if one.filename.endswith(_WARNS_OF_CONFIGS)]
            said[:] = dict.fromkeys([*said, *(str(one.message) for one in of_config)])
    finally:
        logging.getLogger().removeHandler(collector)


if __name__ == "__main__":
    main()
