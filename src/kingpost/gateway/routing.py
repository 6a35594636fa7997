"""Where a request goes, by its host and its path alone. Pure; knows no model, key or replica.

Hosts. Our own names are `localhost`, every `*.localhost`, every IP address (a page in a browser
can't be led to one by DNS rebinding) and the names given at start; `*` there means any name. With
an own name `h`: `model-<id>.api.h` and `model-<id>.h` are a model, `model-<id>-<env>...` an
environment of one, `api.h` is management, `h` everything. Any other Host is 421 in origin form and
in absolute form, so that this is neither an open proxy nor reachable by rebinding. Ports are not
compared.

Paths are never decoded or normalised: `%2F` is no slash, `..` is a segment like any other and is
refused where a path goes to a replica.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kingpost import contract
from kingpost.gateway import guard
from kingpost.gateway.answers import Refusal

_MAX_REMEMBERED: Final = 8192


class Action(Enum):
    """What is asked of a deployment, with the methods that may ask it (None is any)."""

    PREDICT = ("predict", "POST")
    RUN_REMOTE = ("run_remote", "POST")
    WAKE = ("wake", "POST")
    SYNC = ("sync", None)
    WEBSOCKET = ("websocket", "GET")
    ASYNC_PREDICT = ("async_predict", "POST")
    ASYNC_RUN_REMOTE = ("async_run_remote", "POST")
    ASYNC_QUEUE_STATUS = ("async_queue_status", "GET")
    ASYNC_REQUEST = ("async_request", "GET, DELETE")

    def __init__(self, label: str, methods: str | None) -> None:
        self.label = label
        self.methods = methods
        self.is_async = label.startswith("async_")


_ACTIONS: Final = {action.label: action for action in Action if action is not Action.ASYNC_REQUEST}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a model. One of `environment`, `deployment_id`, `development` names the target.

    `path` is the raw path after `sync`, with its leading slash, else empty.
    """

    model_id: str
    action: Action
    environment: str | None = None
    deployment_id: str | None = None
    development: bool = False
    path: bytes = b""


@dataclass(frozen=True, slots=True)
class Internal:
    """For the control plane. `authority` is the host asked for, without its `api.`."""

    authority: bytes


@dataclass(frozen=True, slots=True)
class Health:
    """`/healthz`."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No such place: answered with this status and message."""

    status: int
    message: str


Destination = Call | Internal | Health | Nowhere


@dataclass(frozen=True, slots=True)
class _Host:
    model: str | None
    authority: bytes


class Router:
    """Resolves hosts and paths. What it found last is remembered, within a bound."""

    def __init__(self, host_names: Iterable[str] = ()) -> None:
        names = {name.lower().rstrip(".") for name in host_names if name}
        self._any = "*" in names
        self._names = frozenset(names | {"localhost"})
        self._found: dict[tuple[bytes, bytes], Destination] = {}

    def resolve(self, host: bytes, target: bytes) -> tuple[Destination, bytes, bytes, bytes]:
        """(destination, authority, path, query with its `?`) of a request target.

        Raises `Refusal` for a target that is no path and no http address.
        """
        if target[:1] != b"/":
            host, target = _absolute(target)
        path, mark, query = target.partition(b"?")
        key = (host, path)
        destination = self._found.get(key)
        if destination is None:
            destination = self._find(host, path)
            if len(self._found) >= _MAX_REMEMBERED:
                self._found.clear()
            self._found[key] = destination
        return destination, host, path, mark + query

    def _find(self, host: bytes, path: bytes) -> Destination:
        if not guard.is_host(host):
            return Nowhere(400, "The host is not a name or address with an optional port.")
        place = self._place(host)
        if place is None:
            return Nowhere(
                421,
                "This server does not answer for the host that was asked; use its own address, or "
                "start it with that name in --host-names.",
            )
        if place.model is not None:
            model_id, dash, environment = place.model.partition("-")
            if dash:
                return _bare_call(model_id, environment, path)
            return _call(model_id, path)
        if path == b"/healthz":
            return Health()
        if path.startswith(b"/model/"):
            model, slash, rest = path[len(b"/model/") :].partition(b"/")
            return _call(_text(model), slash + rest)
        return Internal(place.authority)

    def _place(self, host: bytes) -> _Host | None:
        text = host.decode("ascii").lower()
        name, port = _split_port(text)
        first, dot, rest = name.partition(".")
        if first.startswith("model-") and dot:
            base = rest.removeprefix("api.")
            if self._is_own(base) or self._is_own(rest):
                return _Host(first.removeprefix("model-"), host)
        if first == "api" and dot and self._is_own(rest):
            return _Host(None, (rest + port).encode())
        if self._is_own(name):
            return _Host(None, host)
        return None

    def _is_own(self, name: str) -> bool:
        name = name.rstrip(".")
        if not name:
            return False
        if self._any or name in self._names or name.endswith(".localhost"):
            return True
        return _is_address(name)


def _call(model_id: str, path: bytes) -> Destination:
    """`/{target}/{action}` below a model."""
    parts = path.split(b"/", 4)[1:]
    kind = parts[0] if parts else b""
    if kind == b"production" and len(parts) > 1:
        return _action(model_id, path, 1, environment=contract.PRODUCTION)
    if kind == b"development" and len(parts) > 1:
        return _action(model_id, path, 1, development=True)
    if kind == b"environments" and len(parts) > 2 and parts[1]:
        return _action(model_id, path, 2, environment=_text(parts[1]))
    if kind == b"deployment" and len(parts) > 2 and parts[1]:
        return _action(model_id, path, 2, deployment_id=_text(parts[1]))
    if kind == b"async_request" and len(parts) == 2 and parts[1]:
        return Call(model_id, Action.ASYNC_REQUEST)
    return Nowhere(
        404,
        "No such target. After the model come production, development, environments/<name> or "
        "deployment/<id>, and then an action such as predict or sync/<path>.",
    )


def _bare_call(model_id: str, environment: str, path: bytes) -> Destination:
    """`/{action}` on the host of one environment."""
    if path.startswith(b"/async_request/"):
        return Call(model_id, Action.ASYNC_REQUEST)
    return _action(model_id, path, 0, environment=environment)


def _action(
    model_id: str,
    path: bytes,
    skip: int,
    *,
    environment: str | None = None,
    deployment_id: str | None = None,
    development: bool = False,
) -> Destination:
    """What follows after `skip` segments of the path must be an action."""
    rest = path.split(b"/", skip + 1)[-1]
    label, slash, below = rest.partition(b"/")
    action = _ACTIONS.get(_text(label))
    if action is None or (slash and action is not Action.SYNC):
        return Nowhere(
            404,
            "No such action. There are predict, run_remote, wake, sync/<path> and websocket.",
        )
    if action is Action.SYNC and _has_dots(below):
        return Nowhere(400, "A path that goes to a model may not hold '.' or '..' segments.")
    return Call(
        model_id,
        action,
        environment,
        deployment_id,
        development,
        b"/" + below if action is Action.SYNC else b"",
    )


def reaches_control_server(path: bytes) -> bool:
    """Whether a truss control server would take `path` for one of its own `/control` routes.

    They patch the model's code and are for the platform alone.
    """
    text = path
    for _ in range(4):
        segments = [part for part in text.replace(b"\\", b"/").split(b"/") if part]
        if segments and segments[0].lower() == b"control":
            return True
        decoded = _unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def _has_dots(path: bytes) -> bool:
    if b"." not in path and b"%" not in path:
        return False
    parts = _unquote(path).replace(b"\\", b"/").split(b"/")
    return b"." in parts or b".." in parts


def _unquote(path: bytes) -> bytes:
    if b"%" not in path:
        return path
    head, *tails = path.split(b"%")
    out = [head]
    for tail in tails:
        digits = tail[:2]
        try:
            out.append(bytes([int(digits, 16)]) + tail[2:] if digits.isalnum() else b"%" + tail)
        except ValueError:
            out.append(b"%" + tail)
    return b"".join(out)


def _absolute(target: bytes) -> tuple[bytes, bytes]:
    """(authority, path and query) of `http://...`."""
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in {b"http", b"https"}:
        raise Refusal(400, "The request target is neither a path nor an http address.", close=True)
    for at, byte in enumerate(rest):
        if byte in b"/?":
            authority, path = rest[:at], rest[at:]
            break
    else:
        authority, path = rest, b""
    if not authority or b"@" in authority or b"\\" in authority:
        raise Refusal(400, "The request target names no plain host.", close=True)
    return authority, path if path[:1] == b"/" else b"/" + path


def _split_port(host: str) -> tuple[str, str]:
    """(name without brackets, port with its colon or empty)."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name, port
    name, colon, port = host.partition(":")
    return name.rstrip("."), colon + port


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _text(segment: bytes) -> str:
    return segment.decode("latin-1")
