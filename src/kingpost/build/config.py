"""A Truss's config as the values that a build needs. Pure; keys it does not know are left alone."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from typing import Any

from kingpost import contract
from kingpost.build.base import Accelerator, HealthChecks
from kingpost.errors import BuildFailedError

_UNITS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("kMGTPE", 1)},
    **{unit + "i": 1024**power for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)")
_SKU = re.compile(
    r"(?:(?P<gpu>[A-Z][A-Z0-9_\-]*?)(?::(?P<count>\d+))?[x:])?(?P<cpu>\d+)x(?P<gib>\d+)"
)
_GPU_ONLY = re.compile(r"(?P<gpu>[A-Z][A-Z0-9_\-]*)(?::(?P<count>\d+))?")
_DEFAULT_HEALTH = HealthChecks()
_PYTHON = re.compile(r"py(\d)(\d+)")


@dataclass(frozen=True)
class DockerServer:
    start_command: str
    port: int
    predict_path: str
    ready_path: str
    live_path: str
    run_as_user_id: int | None = None
    no_build: bool = False


@dataclass(frozen=True)
class WeightsSource:
    """`secret_name` names the secret that opens the source; `auth_method` is None for that form."""

    source: str
    mount: str
    secret_name: str | None = None
    auth_method: str | None = None
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExternalFile:
    """`path` is relative to the data folder."""

    url: str
    path: str


@dataclass(frozen=True)
class ModelConfig:
    """`python` is (3, 11), and `python_explicit` whether the user's own file names it."""

    python: tuple[int, int]
    python_explicit: bool
    model_module_dir: str = "model"
    data_dir: str = "data"
    packages_dir: str = "packages"
    requirements_file: str | None = None
    build_commands: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    environment_variables: tuple[tuple[str, str], ...] = ()
    secret_names: tuple[str, ...] = ()
    base_image: str | None = None
    python_executable_path: str | None = None
    docker_server: DockerServer | None = None
    external_data: tuple[ExternalFile, ...] = ()
    weights: tuple[WeightsSource, ...] = ()
    cpu_millis: int = 1000
    memory_bytes: int = 2 * contract.GIB
    accelerator: Accelerator | None = None
    predict_concurrency: int = 1
    transport: str = "http"
    health: HealthChecks = _DEFAULT_HEALTH
    build_secrets: tuple[str, ...] = ()
    not_applied: tuple[str, ...] = ()


def read(parsed: dict[str, Any], raw: dict[str, Any]) -> ModelConfig:
    """`parsed` is truss's own reading, `raw` the user's file. Raises `BuildFailedError`."""
    resources, runtime = _folder(parsed, "resources"), _folder(parsed, "runtime")
    image = _folder(parsed, "base_image")
    cpu, memory, accelerator = _resources(resources)
    return ModelConfig(
        python=_python(str(parsed.get("python_version") or "py313")),
        python_explicit=bool(raw.get("python_version")),
        model_module_dir=_inside(parsed, "model_module_dir", "model"),
        data_dir=_inside(parsed, "data_dir", "data"),
        packages_dir=_inside(parsed, "bundled_packages_dir", "packages"),
        requirements_file=parsed.get("requirements_file") or None,
        build_commands=_texts(parsed, "build_commands"),
        system_packages=_texts(parsed, "system_packages"),
        environment_variables=tuple(
            (str(key), str(value))
            for key, value in _folder(parsed, "environment_variables").items()
        ),
        secret_names=tuple(str(name) for name in _folder(parsed, "secrets")),
        base_image=image.get("image") or None,
        python_executable_path=image.get("python_executable_path") or None,
        docker_server=_docker_server(parsed.get("docker_server")),
        external_data=_external_data(parsed.get("external_data") or []),
        weights=_weights(parsed),
        cpu_millis=cpu,
        memory_bytes=memory,
        accelerator=accelerator,
        predict_concurrency=max(1, int(runtime.get("predict_concurrency") or 1)),
        transport=str(_folder(runtime, "transport").get("kind") or "http"),
        health=_health(_folder(runtime, "health_checks")),
        build_secrets=tuple(_folder(_folder(parsed, "build"), "secret_to_path_mapping")),
        not_applied=_not_applied(parsed, runtime, image),
    )


def cpu_millis(text: str) -> int:
    """`500m` is 500, `2` and `2.0` are 2000. Raises `BuildFailedError`."""
    try:
        value = float(text[:-1]) if text.endswith("m") else float(text) * 1000
        return max(1, math.ceil(value))
    except (ValueError, OverflowError):
        raise BuildFailedError(f"resources.cpu: {text!r} is no amount; write 2 or 500m.") from None


def memory_bytes(text: str) -> int:
    """`2Gi`, `500M` or a plain number of bytes. Raises `BuildFailedError`."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match.group(2) not in _UNITS:
        raise BuildFailedError(f"resources.memory: {text!r} is no amount; write 2Gi or 512Mi.")
    return math.ceil(float(match.group(1)) * float(_UNITS[match.group(2)]))


def accelerator(text: str | None) -> Accelerator | None:
    """`T4` is one, `T4:2` two. Raises `BuildFailedError`."""
    if not text:
        return None
    name, _, count = text.partition(":")
    if not name or (count and not count.isdecimal()):
        raise BuildFailedError(f"resources.accelerator: {text!r} is none; write L4 or L4:2.")
    number = int(count or 1)
    return Accelerator(name, number) if number else None


def sku(text: str) -> tuple[int, int, Accelerator | None] | None:
    """An instance type's id as (millicpus, bytes, accelerator): `2x8`, `L4:4x16`, `T4x4x16`.

    An id that only names a GPU leaves the other two at 0; None when it is of no known form.
    """
    if match := _SKU.fullmatch(text):
        gpu = Accelerator(match["gpu"], int(match["count"] or 1)) if match["gpu"] else None
        return int(match["cpu"]) * 1000, int(match["gib"]) * contract.GIB, gpu
    if match := _GPU_ONLY.fullmatch(text):
        return 0, 0, Accelerator(match["gpu"], int(match["count"] or 1))
    return None


def _resources(resources: dict[str, Any]) -> tuple[int, int, Accelerator | None]:
    cpu = cpu_millis(str(resources.get("cpu") or "1"))
    memory = memory_bytes(str(resources.get("memory") or "2Gi"))
    if named := resources.get("instance_type"):
        found = sku(str(named))
        if found is None:
            raise BuildFailedError(
                f"resources.instance_type: {named!r} is not known; write 2x8 or L4:4x16."
            )
        return found[0] or cpu, found[1] or memory, found[2]
    return cpu, memory, accelerator(resources.get("accelerator"))


def _docker_server(value: dict[str, Any] | None) -> DockerServer | None:
    if not value:
        return None
    command = (value.get("start_command") or "").strip()
    if not command:
        raise BuildFailedError(
            "docker_server: `no_build` without a `start_command` runs an image's own entry point, "
            "which needs the container engine. Name a start_command to run it as a process."
        )
    for name in ("predict_endpoint", "readiness_endpoint", "liveness_endpoint"):
        if not str(value.get(name) or "").startswith("/"):
            raise BuildFailedError(f"docker_server.{name} must be a path that starts with `/`.")
    return DockerServer(
        start_command=command,
        port=int(value["server_port"]),
        predict_path=value["predict_endpoint"],
        ready_path=value["readiness_endpoint"],
        live_path=value["liveness_endpoint"],
        run_as_user_id=value.get("run_as_user_id"),
        no_build=bool(value.get("no_build")),
    )


def _weights(parsed: dict[str, Any]) -> tuple[WeightsSource, ...]:
    """`weights`, and a `model_cache` with volumes, which is the same in an older form."""
    sources = [_weights_source(entry) for entry in parsed.get("weights") or []]
    for entry in parsed.get("model_cache") or []:
        if entry.get("use_volume"):
            scheme = {"gcs": "gs"}.get(entry.get("kind") or "hf", entry.get("kind") or "hf")
            repo = str(entry["repo_id"]).removeprefix(f"{scheme}://")
            revision = f"@{entry['revision']}" if entry.get("revision") and scheme == "hf" else ""
            sources.append(
                WeightsSource(
                    source=f"{scheme}://{repo}{revision}",
                    mount=f"/app/model_cache/{entry['volume_folder']}",
                    secret_name=entry.get("runtime_secret_name"),
                    allow=tuple(entry.get("allow_patterns") or ()),
                    ignore=tuple(entry.get("ignore_patterns") or ()),
                )
            )
    for source in sources:
        if not source.mount.startswith("/") or ".." in source.mount.split("/"):
            raise BuildFailedError(
                f"weights: mount_location {source.mount!r} must be an absolute path without `..`."
            )
        if source.mount.rstrip("/") in {"", "/app", "/packages", "/secrets", "/usr", "/etc"}:
            raise BuildFailedError(
                f"weights: mount_location {source.mount!r} would hide what is there; "
                "choose a folder of its own, such as /models/base."
            )
    return tuple(sources)


def _weights_source(entry: dict[str, Any]) -> WeightsSource:
    auth = entry.get("auth") or {}
    method = auth.get("auth_method")
    return WeightsSource(
        source=str(entry["source"]),
        mount=str(entry["mount_location"]),
        secret_name=entry.get("auth_secret_name") or auth.get("auth_secret_name"),
        auth_method=None if method in (None, "CUSTOM_SECRET") else str(method),
        allow=tuple(entry.get("allow_patterns") or ()),
        ignore=tuple(entry.get("ignore_patterns") or ()),
    )


def _external_data(entries: list[dict[str, Any]]) -> tuple[ExternalFile, ...]:
    files = []
    for entry in entries:
        path = str(entry.get("local_data_path") or entry.get("name") or "")
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise BuildFailedError(
                f"external_data: local_data_path {path!r} must lie inside the data folder."
            )
        files.append(ExternalFile(str(entry["url"]), path))
    return tuple(files)


def _health(value: dict[str, Any]) -> HealthChecks:
    def seconds(name: str) -> float:
        given = value.get(f"{name}_threshold_seconds")
        if given is None:
            return contract.HEALTH_THRESHOLD_DEFAULT_S
        low, high = contract.HEALTH_THRESHOLD_RANGE_S
        return float(min(max(int(given), low), high))

    return HealthChecks(seconds("startup"), seconds("stop_traffic"), seconds("restart"))


def _not_applied(
    parsed: dict[str, Any], runtime: dict[str, Any], image: dict[str, Any]
) -> tuple[str, ...]:
    """One line for each thing asked for that this engine does not do."""
    resources = _folder(parsed, "resources")
    legacy_cache = [e for e in parsed.get("model_cache") or [] if not e.get("use_volume")]
    asked = {
        "model_cache without use_volume: the model is not baked in; it is fetched when the model "
        "asks for it. Use `weights`": legacy_cache,
        "base_image.docker_auth: no image is pulled": image.get("docker_auth"),
        "build.secret_to_path_mapping: build steps get no secrets": _folder(parsed, "build").get(
            "secret_to_path_mapping"
        ),
        "runtime.remote_ssh: no SSH server is started": _folder(runtime, "remote_ssh").get(
            "enabled"
        ),
        "runtime.oidc: no OIDC token is mounted": _folder(runtime, "oidc").get("enabled"),
        "runtime.egress_restrictions: egress is not restricted": runtime.get("egress_restrictions"),
        "runtime.truss_server_version_override: the platform's truss version is used": runtime.get(
            "truss_server_version_override"
        ),
        "runtime.transport grpc: only HTTP and WebSocket are routed": _folder(
            runtime, "transport"
        ).get("kind")
        == "grpc",
        "resources.node_count: one machine runs the model": (resources.get("node_count") or 1) > 1,
        "resources.fabric: no network fabric is chosen": resources.get("fabric"),
        "bdn: no volumes are mounted": _folder(parsed, "bdn").get("mounts"),
        "bis_llm: Baseten's own engine is not available": parsed.get("bis_llm"),
        "training_checkpoints: no training jobs are known here": parsed.get("training_checkpoints"),
    }
    return tuple(line for line, wanted in asked.items() if wanted)


def _python(text: str) -> tuple[int, int]:
    match = _PYTHON.fullmatch(text)
    if match is None:
        raise BuildFailedError(f"python_version: {text!r} is none; write py311 or the like.")
    return int(match.group(1)), int(match.group(2))


def _inside(parsed: dict[str, Any], key: str, default: str) -> str:
    value = str(parsed.get(key) or default).rstrip("/")
    parts = [part for part in value.split("/") if part != "."]
    if value.startswith("/") or ".." in parts or not parts:
        raise BuildFailedError(f"{key}: {value!r} must be a folder inside the Truss.")
    return "/".join(parts)


def _folder(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _texts(value: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(str(item) for item in value.get(key) or ())


def command_text(argv: tuple[str, ...]) -> str:
    """A command as a person would type it."""
    return shlex.join(argv)
