"""What must be so before a deployment to Baseten or a platform like it, each with its fix."""

from __future__ import annotations

from kingpost.client.remote import Remote
from kingpost.client.rest import RestClient
from kingpost.deploy.catalog import Catalog, Gpu, load
from kingpost.deploy.provider import Check
from kingpost.deploy.request import DeployRequest
from kingpost.errors import ForbiddenError, KingpostError, NotFoundError, UnauthorizedError


def preflight(remote: Remote, request: DeployRequest, catalog: Catalog) -> tuple[Check, ...]:
    """Stops after the first check whose failure leaves the others without an answer."""
    found = [_key(remote)]
    if not found[-1].passed:
        return tuple(found)
    with RestClient(remote) as api:
        try:
            types = api.get("/v1/instance_types")["instance_types"]
        except (UnauthorizedError, ForbiddenError) as error:
            return (*found, Check("key valid", False, error.message, _key_fix(remote)))
        except KingpostError as error:
            fix = "check the network and `kingpost remotes`"
            return (*found, Check("reachable", False, error.message, fix))
        found.append(Check("key valid", True, f"{remote.url} takes the key"))
        if request.gpu is not None:
            found.append(_gpu(request.gpu, request.gpu_count, types, catalog))
        needed = dict.fromkeys((*request.secrets, *filter(None, [request.hub_secret])))
        if needed:
            there = {secret["name"] for secret in api.get("/v1/secrets")["secrets"]}
            found += [_secret(name, there, remote) for name in needed]
    return tuple(found)


def offers(remote: Remote, gpu: Gpu | None) -> bool:
    """Whether the remote answers with this key and lists the GPU."""
    if not remote.api_key:
        return False
    try:
        with RestClient(remote) as api:
            types = api.get("/v1/instance_types")["instance_types"]
    except KingpostError:
        return False
    return gpu is None or _gpu(gpu, 1, types, load()).passed


def _key(remote: Remote) -> Check:
    if remote.api_key:
        return Check("key present", True, f"a key for {remote.url} is set")
    return Check("key present", False, f"no key for {remote.url} is set", _key_fix(remote))


def _key_fix(remote: Remote) -> str:
    if remote.is_baseten:
        return "set BASETEN_API_KEY, or: kingpost login baseten"
    return f"set KINGPOST_API_KEY, or: kingpost login NAME --url {remote.url}"


def _gpu(gpu: Gpu, count: int, types: list[dict[str, object]], catalog: Catalog) -> Check:
    offered = {
        str(kind["gpu_type"])
        for kind in types
        if kind.get("gpu_type") and int(str(kind.get("gpu_count") or 0)) >= count
    }
    label = f"{count} x {gpu.label}" if count > 1 else gpu.label
    if any(_same(name, gpu, catalog) for name in offered):
        return Check("GPU offered", True, f"{label} is offered")
    has = ", ".join(sorted(offered)) or "none"
    return Check(
        "GPU offered",
        False,
        f"{label} is not offered there; GPUs with as many: {has}",
        "choose another --gpu or --provider; on a platform that was started with "
        "--emulate-accelerators, go on with --emulated-gpu",
    )


def _same(name: str, gpu: Gpu, catalog: Catalog) -> bool:
    try:
        return catalog.gpu(name) == gpu
    except NotFoundError:
        return False


def _secret(name: str, there: set[str], remote: Remote) -> Check:
    if name in there:
        return Check(f"secret {name}", True, f"{name} is set")
    return Check(
        f"secret {name}",
        False,
        f"the secret {name} is not set",
        f"kingpost secrets set {name} --remote {remote.name}",
    )
