"""What control and gateway tell each other: snapshot, deltas, load reports. Values only, no I/O.

Messages only ever grow: a field is added with a default and never renamed or reused, and a reader
ignores fields it does not know, so that a gateway and a control plane of neighbouring versions
work together. Frames on the wire are a 4-byte big-endian length and that many bytes of
MessagePack. Control connects to the gateway's Unix socket; the gateway speaks first (`Hello`).
"""

from __future__ import annotations

import msgspec

from kingpost import contract

MAX_FRAME_BYTES = 64 * contract.MIB


class ReplicaAddress(msgspec.Struct, frozen=True):
    """A replica that is ready for traffic. `host` is an IP address as text."""

    id: str
    host: str
    port: int


class DeploymentRoute(msgspec.Struct, frozen=True):
    """All that the gateway knows of a deployment.

    `replicas` holds the ready ones only. `wakes` says that a request may be held until a replica
    is there (the control plane starts one when it hears of it); without it and without replicas
    a request is refused with `reason`. Paths are the replica's own: `predict_path` answers
    predict and run_remote, `websocket_path` answers websocket, `rewrites` maps other exact
    paths of the truss server (`/`, `/v1/models/model`, ...) for servers that are not truss's.
    """

    id: str
    model_id: str
    status: str
    replicas: tuple[ReplicaAddress, ...] = ()
    wakes: bool = False
    reason: str | None = None
    development: bool = False
    predict_path: str = contract.TRUSS_PREDICT_PATH
    websocket_path: str = contract.TRUSS_WEBSOCKET_PATH
    rewrites: dict[str, str] = {}
    concurrency_target: int = 1
    target_utilization: float = 0.7
    predict_timeout_s: float = contract.PREDICT_TIMEOUT_S
    backpressure: str | None = None


class ModelRoute(msgspec.Struct, frozen=True):
    """A model and where its names lead: environment name or `development` to deployment id."""

    id: str
    name: str
    team_id: str
    environments: dict[str, str] = {}
    development: str | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """An API key as the gateway may know it: `digest` is the hex SHA-256 of the whole key."""

    id: str
    digest: str
    category: str
    team_id: str
    model_ids: tuple[str, ...] | None = None


class Notice(msgspec.Struct, frozen=True):
    """Something that `/healthz` tells an operator, such as a sandbox that is missing."""

    code: str
    message: str


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """The whole world at `number`. Replaces all that the gateway knew."""

    number: int
    models: tuple[ModelRoute, ...] = ()
    deployments: tuple[DeploymentRoute, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    notices: tuple[Notice, ...] = ()


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """The step from `number - 1` to `number`: whole new values of what changed, and removed ids.

    A gateway that is not at `number - 1` drops the connection; control then sends a snapshot.
    """

    number: int
    models: tuple[ModelRoute, ...] = ()
    deployments: tuple[DeploymentRoute, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    removed_models: tuple[str, ...] = ()
    removed_deployments: tuple[str, ...] = ()
    removed_keys: tuple[str, ...] = ()
    notices: tuple[Notice, ...] | None = None


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The gateway's first frame: its process id, and the number of the state that it holds."""

    pid: int
    version: str
    number: int


class Load(msgspec.Struct, frozen=True):
    """One deployment's load: now in flight, now held, requests since the gateway started.

    `average` is that of in flight and held together since the last report, None when too little
    time has passed for one.
    """

    in_flight: int
    held: int
    requests: int
    average: float | None = None


class LoadReport(msgspec.Struct, frozen=True, tag="load"):
    """Every second, and at once when a request is held by a deployment with no replica.

    Holds the deployments with any load, and those whose load fell to nothing since the last one.
    `replicas` gives in-flight requests per replica that has any, `number` the state that the
    gateway was at: a replica that was routed away by then and is not named has nothing in flight.
    """

    loads: dict[str, Load] = {}
    replicas: dict[str, int] = {}
    number: int = 0


class WakeRequested(msgspec.Struct, frozen=True, tag="wake"):
    """`POST .../wake`: start a replica although no request waits."""

    deployment_id: str


ToGateway = Snapshot | Delta
ToControl = Hello | LoadReport | WakeRequested
