"""The workspace: teams, who the key is, instance types and prices, regions."""

from __future__ import annotations

from typing import Final

from kingpost.api import bodies, shapes
from kingpost.api.auth import Access
from kingpost.api.rest.call import Call, Door
from kingpost.api.views import instance_type_view, team_view

HERE: Final = shapes.Region(slug="local", display_name="This platform's machine")


async def list_teams(call: Call) -> shapes.Teams:
    name = call.query(bodies.ByName).name
    own = [team for team in call.platform.teams.list(name) if team.id == call.team_id]
    return shapes.Teams(teams=tuple(map(team_view, own)))


async def get_team(call: Call) -> shapes.Team:
    return team_view(call.platform.teams.get(call.named_team()))


async def who_am_i(call: Call) -> shapes.UserInfo:
    """This platform has keys, not accounts: the key stands for its user."""
    return shapes.UserInfo(
        user_id=call.key.prefix,
        name=call.key.name,
        workspace_name=call.views.team_name(call.team_id),
    )


async def list_instance_types(call: Call) -> shapes.InstanceTypes:
    return shapes.InstanceTypes(
        instance_types=tuple(map(instance_type_view, call.platform.instance_types))
    )


async def list_prices(call: Call) -> shapes.InstanceTypePrices:
    return shapes.InstanceTypePrices(
        instance_types=tuple(
            shapes.InstanceTypeWithPrice(
                instance_type=instance_type_view(instance),
                price=float(instance.price_per_minute_usd),
            )
            for instance in call.platform.instance_types
        )
    )


async def list_regions(call: Call) -> shapes.Regions:
    if "team_id" in call.request.path_params:
        call.named_team()
    return shapes.Regions(regions=(HERE,))


DOORS = (
    Door("GET", "/v1/teams", list_teams),
    Door("GET", "/v1/teams/{team_id}", get_team),
    Door("GET", "/v1/users/me", who_am_i, Access.ANY),
    Door("GET", "/v1/instance_types", list_instance_types),
    Door("GET", "/v1/instance_type_prices", list_prices),
    Door("GET", "/v1/regions", list_regions),
    Door("GET", "/v1/teams/{team_id}/regions", list_regions),
)
