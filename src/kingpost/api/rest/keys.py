"""API keys: made (their value is shown this once), listed and revoked by prefix."""

from __future__ import annotations

from kingpost.api import bodies, shapes
from kingpost.api.auth import Access
from kingpost.api.rest.call import Call, Door
from kingpost.contract import KeyCategory
from kingpost.control.keys import MANAGING
from kingpost.errors import ForbiddenError


async def list_keys(call: Call) -> shapes.KeyInfos:
    found = call.platform.keys.list(call.team_id)
    return shapes.KeyInfos(keys=tuple(map(call.views.key, found)))


async def create_key(call: Call) -> shapes.NewKey:
    team_id = call.named_team() if "team_id" in call.request.path_params else call.team_id
    body = await call.body(bodies.CreateKey)
    _check_no_more_than_own(call, body.type)
    made = call.platform.keys.create(
        team_id, name=body.name, category=body.type, model_ids=body.model_ids
    )
    return shapes.NewKey(api_key=made.value)


async def revoke_key(call: Call) -> shapes.KeyTombstone:
    gone = call.platform.keys.revoke(call.team_id, call.path("api_key_prefix"))
    return shapes.KeyTombstone(prefix=gone.prefix)


def _check_no_more_than_own(call: Call, wanted: KeyCategory) -> None:
    if wanted in MANAGING and call.key.category not in MANAGING:
        raise ForbiddenError(
            f"A key of type {call.key.category.value} can't make one of type {wanted.value}, "
            "which may do more than itself."
        )


DOORS = (
    Door("GET", "/v1/api_keys", list_keys, Access.KEYS),
    Door("POST", "/v1/api_keys", create_key, Access.KEYS),
    Door("POST", "/v1/teams/{team_id}/api_keys", create_key, Access.KEYS),
    Door("DELETE", "/v1/api_keys/{api_key_prefix}", revoke_key, Access.KEYS),
)
