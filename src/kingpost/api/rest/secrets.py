"""Secrets: set, listed and removed by name. A value never leaves through this door."""

from __future__ import annotations

from kingpost.api import bodies, shapes
from kingpost.api.rest.call import Call, Door


async def list_secrets(call: Call) -> shapes.Secrets:
    found = call.platform.secrets.list(_team(call))
    return shapes.Secrets(secrets=tuple(map(call.views.secret, found)))


async def upsert_secret(call: Call) -> shapes.Secret:
    team_id = _team(call)
    body = await call.body(bodies.UpsertSecret)
    return call.views.secret(call.platform.secrets.put(team_id, body.name, body.value))


async def delete_secret(call: Call) -> shapes.SecretTombstone:
    gone = call.platform.secrets.delete(_team(call), call.path("secret_name"))
    return shapes.SecretTombstone(name=gone.name)


def _team(call: Call) -> str:
    return call.named_team() if "team_id" in call.request.path_params else call.team_id


DOORS = tuple(
    Door(method, prefix + path, handler)
    for prefix in ("/v1", "/v1/teams/{team_id}")
    for method, path, handler in (
        ("GET", "/secrets", list_secrets),
        ("POST", "/secrets", upsert_secret),
        ("DELETE", "/secrets/{secret_name}", delete_secret),
    )
)
