"""From what a user types, a name or an id, to models and deployments; a miss names the nearest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final

from kingpost.client.remote import segment
from kingpost.client.rest import RestClient
from kingpost.contract import DEVELOPMENT, PRODUCTION
from kingpost.errors import NotFoundError

_ID: Final = re.compile(r"[a-z0-9]{7,8}")

Json = dict[str, Any]


def find_model(api: RestClient, named: str) -> Json:
    """A model by id or exact name. Raises NotFoundError with the nearest names."""
    if _ID.fullmatch(named):
        try:
            found: Json = api.get(f"/v1/models/{segment(named)}")
        except NotFoundError:
            pass
        else:
            return found
    model = model_by_name(api, named)
    if model is not None:
        return model
    names = [m["name"] for m in api.get("/v1/models")["models"]]
    raise NotFoundError(miss("model", named, names, "`kingpost models` lists them"))


def model_by_name(api: RestClient, name: str) -> Json | None:
    answer = api.get("/v1/models", {"name": name})
    return next((m for m in answer["models"] if m["name"] == name), None)


def find_deployment(api: RestClient, model: Json, named: str) -> Json:
    """A deployment of a model by id, exact name, or one of `production` and `development`."""
    base = f"/v1/models/{segment(model['id'])}/deployments"
    if named in {PRODUCTION, DEVELOPMENT}:
        return _aliased(api, base, model, named)
    if _ID.fullmatch(named):
        try:
            found: Json = api.get(f"{base}/{segment(named)}")
        except NotFoundError:
            pass
        else:
            return found
    deployments = api.get(base)["deployments"]
    # Names may repeat over time; the newest is meant.
    same = [d for d in deployments if named in {d["name"], d["id"]}]
    if same:
        newest: Json = max(same, key=lambda d: str(d["created_at"]))
        return newest
    names = [d["name"] for d in deployments] + [d["id"] for d in deployments]
    hint = f"`kingpost deployments list {model['name']}` lists them"
    raise NotFoundError(miss("deployment", named, names, hint))


def current_deployment(api: RestClient, model: Json, environment: str) -> Json:
    """The deployment that an environment points to. Raises NotFoundError where there is none."""
    answer = find_environment(api, model, environment)
    current: Json | None = answer["current_deployment"]
    if current is None:
        raise NotFoundError(
            f"Environment {environment!r} of {model['name']} has no deployment yet. Promote one: "
            f"kingpost promote {model['name']} DEPLOYMENT --environment {environment}"
        )
    return current


def find_environment(api: RestClient, model: Json, name: str) -> Json:
    base = f"/v1/models/{segment(model['id'])}/environments"
    try:
        found: Json = api.get(f"{base}/{segment(name)}")
    except NotFoundError:
        names = [e["name"] for e in api.get(base)["environments"]]
        hint = f"`kingpost env list {model['name']}` lists them"
        raise NotFoundError(miss("environment", name, names, hint)) from None
    return found


def miss(kind: str, named: str, known: Iterable[str], hint: str) -> str:
    """What to say when nothing has that name."""
    known = list(dict.fromkeys(known))
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(named.casefold(), folded, n=3, cutoff=0.5)
    nearest = f" Did you mean {' or '.join(repr(folded[n]) for n in near)}?" if near else ""
    return f"No {kind} is named {named!r}.{nearest} ({hint})"


def _aliased(api: RestClient, base: str, model: Json, alias: str) -> Json:
    try:
        found: Json = api.get(f"{base}/{alias}")
    except NotFoundError:
        how = "kingpost push DIR --development" if alias == DEVELOPMENT else "kingpost promote"
        raise NotFoundError(
            f"{model['name']} has no {alias} deployment. To make one: {how}"
        ) from None
    return found
