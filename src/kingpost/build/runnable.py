"""From what a build made to the value that replicas are started from. Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kingpost import contract
from kingpost.build import docker_server
from kingpost.build.base import Runnable
from kingpost.build.bundle import Bundle
from kingpost.build.config import DockerServer, ModelConfig
from kingpost.build.environment import Environment
from kingpost.build.steps import index_settings, shown, uv_tool
from kingpost.build.truss_env import TrussEnvironment
from kingpost.engine.base import Bind, Overlay

APP = "/app"
PACKAGES = "/packages"
HOME = "/root"
"""The home folder of build commands, and of replicas when the commands left anything there."""
CONTROL = "/control"
INFERENCE_PORT = 8090
"""Where the server listens behind the control server of a development deployment."""
PLAIN_PORT = "{port}"
"""What the engine fills in where there is no sandbox: the port that it chose."""
REPLICA = "{replica}"
"""Stands for the replica's own folder in the `upper` and `work` of an overlay, so that what is
written there goes with the replica. Whoever makes the `ReplicaSpec` puts the folder in."""


@dataclass(frozen=True)
class Layer:
    """What build commands changed: a folder with one upper layer for each target below."""

    target: str
    upper: Path


@dataclass(frozen=True)
class Parts:
    """What a build made. `layers` are the results of build commands, `weights` (folder, mount)."""

    config: ModelConfig
    environment: Environment
    bundle: Bundle
    truss_hash: str
    truss_signature: str
    layers: tuple[Layer, ...] = ()
    weights: tuple[tuple[Path, str], ...] = ()
    warnings: tuple[str, ...] = ()
    development: TrussEnvironment | None = None
    sandboxed: bool = True


def assemble(parts: Parts) -> Runnable:
    config, server = parts.config, parts.config.docker_server
    if server is not None:
        argv: tuple[str, ...] = ("/bin/sh", "-c", start_command(server, parts.sandboxed))
    elif parts.development is not None:
        argv = (str(parts.development.python), f"{CONTROL}/control/server.py")
    else:
        argv = (str(parts.environment.python), f"{APP}/main.py")
    binds, overlays = _files(parts)
    return Runnable(
        argv=argv,
        cwd=APP,
        port=server.port if server else contract.TRUSS_SERVER_PORT,
        env=variables(parts),
        user_env=dict(config.environment_variables),
        binds=tuple(binds),
        overlays=tuple(overlays),
        rewrites=docker_server.rewrites(server) if server else {},
        ready_path=server.ready_path if server else contract.TRUSS_READY_PATH,
        live_path=server.live_path if server else contract.TRUSS_LIVE_PATH,
        predict_path=server.predict_path if server else contract.TRUSS_PREDICT_PATH,
        websocket_path=server.predict_path if server else contract.TRUSS_WEBSOCKET_PATH,
        secret_names=config.secret_names,
        cpu_millis=config.cpu_millis,
        memory_bytes=config.memory_bytes,
        accelerator=config.accelerator,
        predict_concurrency=config.predict_concurrency,
        health=config.health,
        environment_key=parts.environment.key,
        bundle_key=parts.bundle.key,
        truss_hash=parts.truss_hash,
        truss_signature=parts.truss_signature,
        warnings=parts.warnings,
        control_server=parts.development is not None and server is None,
    )


def start_command(server: DockerServer, sandboxed: bool) -> str:
    """Plain processes share the machine's ports: its port becomes the one that the engine chose."""
    if sandboxed:
        return server.start_command
    return re.sub(rf"(?<![\w.]){server.port}(?![\w.])", PLAIN_PORT, server.start_command)


def variables(parts: Parts) -> dict[str, str]:
    """The platform's variables; the ones of truss's image, and where programs are."""
    config = parts.config
    env = {
        "APP_HOME": APP,
        "PATH": os.pathsep.join(program_path(parts)),
        "PYTHONUNBUFFERED": "1",
        "PYTHON_EXECUTABLE": str(parts.environment.python),
        "VIRTUAL_ENV": str(parts.environment.venv),
        "HASH_TRUSS": parts.truss_hash,
    }
    if config.docker_server is None:
        port = INFERENCE_PORT if parts.development else contract.TRUSS_SERVER_PORT
        env["INFERENCE_SERVER_PORT"] = str(port)
    else:
        env["PORT"] = str(config.docker_server.port)
    if parts.development is not None and config.docker_server is None:
        env |= {**index_settings()[0], "UV_LINK_MODE": "copy", "UV_PYTHON_DOWNLOADS": "never"}
        own = str(contract.TRUSS_SERVER_PORT)
        env["CONTROL_SERVER_PORT"] = own if parts.sandboxed else PLAIN_PORT
    else:
        env["PYTHONDONTWRITEBYTECODE"] = "1"
    if any(layer.target == HOME for layer in parts.layers):
        env["HOME"] = HOME
    python_path = [PACKAGES] if parts.bundle.packages else []
    if parts.environment.image is not None:
        python = f"python{parts.environment.interpreter.short}"
        python_path.append(str(parts.environment.venv / "lib" / python / "site-packages"))
    if python_path:
        env["PYTHONPATH"] = os.pathsep.join(python_path)
    return env


def program_path(parts: Parts) -> tuple[str, ...]:
    """Folders of programs inside: the environment, a mapped image, the system."""
    image = parts.environment.image
    return (
        str(parts.environment.venv / "bin"),
        *([str(image / "bin")] if image else []),
        *docker_server.SYSTEM_PATH,
        *([str(uv_tool().parent)] if parts.development else []),
    )


def on_host(parts: Parts, inside: str) -> Path | None:
    """The file on the host that a path inside shows; None for what a replica does not see."""
    path = Path(inside)
    places = [(Path(layer.target), layer.upper) for layer in parts.layers]
    places += [(Path(APP), parts.bundle.app)]
    if parts.bundle.packages is not None:
        places.append((Path(PACKAGES), parts.bundle.packages))
    places += [(Path(mount), folder) for folder, mount in parts.weights]
    places += [(Path(bind.target), Path(bind.source)) for bind in parts.environment.binds]
    for target, source in places:
        if path.is_relative_to(target):
            found = source / path.relative_to(target)
            if found.exists():
                return found
    if any(path.is_relative_to(folder) for folder in ("/usr", "/bin", "/sbin", "/lib", "/lib64")):
        return path
    return None


def _files(parts: Parts) -> tuple[list[Bind], list[Overlay]]:
    bundle, environment = parts.bundle, parts.environment
    lower: dict[str, list[Path]] = {APP: [bundle.app]}
    binds = environment.runtime_binds
    if parts.development is not None:
        lower[str(environment.venv)] = [environment.venv]
        if bundle.packages is not None:
            lower[PACKAGES] = [bundle.packages]
        binds += shown(
            parts.development.root, Path(os.path.realpath(parts.development.python)).parents[1]
        )
        binds += [*shown(uv_tool()), *index_settings()[1]]
        if bundle.control is not None:
            binds.append(Bind(str(bundle.control), CONTROL))
    elif bundle.packages is not None:
        binds.append(Bind(str(bundle.packages), PACKAGES))
    for layer in parts.layers:
        base = lower.setdefault(layer.target, _base(layer.target, parts))
        base.insert(0, layer.upper)
    if str(environment.venv) not in lower:
        binds.append(Bind(str(environment.venv), str(environment.venv)))
    binds += [Bind(str(folder), mount) for folder, mount in parts.weights]
    overlays = [_overlay(target, folders) for target, folders in lower.items()]
    return binds, overlays


def _base(target: str, parts: Parts) -> list[Path]:
    if target == str(parts.environment.venv):
        return [parts.environment.venv]
    if target == PACKAGES and parts.bundle.packages is not None:
        return [parts.bundle.packages]
    host = Path(target)
    return [host] if host.is_relative_to("/usr") and host.is_dir() else []


def _overlay(target: str, lower: list[Path]) -> Overlay:
    """Upper folders lie side by side: truss's control server looks for packages beside the app."""
    name = target.strip("/").replace("/", "-")[-60:]
    return Overlay(
        lower=tuple(str(folder) for folder in lower),
        upper=f"{REPLICA}/files/{name}",
        work=f"{REPLICA}/work/{name}",
        target=target,
    )
