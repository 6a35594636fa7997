"""Models and teams: found, listed, deleted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from kingpost import contract
from kingpost.control.deployments import check_model, marked_deleted
from kingpost.control.domain import Deployment, Model, Team, Wanted, utc_now
from kingpost.control.events import Events
from kingpost.control.store import Store, Transaction
from kingpost.errors import NotFoundError

DEFAULT_TEAM = "default"


@dataclass(frozen=True)
class ModelView:
    """A model with what every list of models shows of it."""

    model: Model
    deployments_count: int
    production: Deployment | None
    development: Deployment | None


class Models:
    def __init__(self, store: Store, events: Events) -> None:
        self._store = store
        self._events = events

    def get(self, team_id: str, model_id: str) -> ModelView:
        with self._store.begin() as tx:
            check_model(tx, team_id, model_id)
            model = tx.models.get(id=model_id)
            assert model is not None  # noqa: S101 (check_model found it)
            return _view(tx, model)

    def list(self, team_id: str, name: str | None = None) -> tuple[ModelView, ...]:
        """By name; with `name`, the one of exactly that name."""
        filters = {"team_id": team_id} | ({"name": name} if name is not None else {})
        with self._store.begin() as tx:
            found = sorted(tx.models.find(**filters), key=lambda m: (m.name, m.id))
            if len(found) == 1:
                return (_view(tx, found[0]),)
            return _views(tx, found)

    def delete(self, team_id: str, model_id: str) -> Model:
        """The model and all its deployments; replicas stop soon after."""
        with self._store.begin() as tx:
            check_model(tx, team_id, model_id)
            model = tx.models.get(id=model_id)
            assert model is not None  # noqa: S101 (check_model found it)
            doomed = tx.deployments.find(model_id=model_id)
            for deployment in doomed:
                if deployment.wanted is not Wanted.DELETED:
                    tx.deployments.update(marked_deleted(deployment))
            for environment in tx.environments.find(model_id=model_id):
                tx.environments.delete(model_id=model_id, name=environment.name)
            tx.models.delete(id=model_id)
        self._events.model(model_id)
        for deployment in doomed:
            self._events.deployment(deployment.id)
        return model


class Teams:
    """One default team for now; everything is kept by team so that more can come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        with store.begin() as tx:
            found = [team for team in tx.teams.find() if team.default]
            self.default = (
                found[0]
                if found
                else tx.teams.insert(
                    Team(
                        id=contract.new_id(),
                        name=DEFAULT_TEAM,
                        default=True,
                        created_at=utc_now(),
                    )
                )
            )

    def list(self, name: str | None = None) -> tuple[Team, ...]:
        with self._store.begin() as tx:
            return tuple(t for t in tx.teams.find() if name in {None, t.name})

    def get(self, team_id: str) -> Team:
        with self._store.begin() as tx:
            team = tx.teams.get(id=team_id)
        if team is None:
            raise NotFoundError(f"There is no team with the id {team_id!r}.")
        return team


def _view(tx: Transaction, model: Model) -> ModelView:
    alive = [d for d in tx.deployments.find(model_id=model.id) if d.wanted is not Wanted.DELETED]
    environment = tx.environments.get(model_id=model.id, name=contract.PRODUCTION)
    current = environment.current if environment else None
    return ModelView(
        model=model,
        deployments_count=len(alive),
        production=next((d for d in alive if d.id == current), None),
        development=next((d for d in alive if d.is_development), None),
    )


def _views(tx: Transaction, models: list[Model]) -> tuple[ModelView, ...]:
    """Many at once, by three queries in all."""
    ids = {model.id for model in models}
    alive = [
        d for d in tx.deployments.find() if d.model_id in ids and d.wanted is not Wanted.DELETED
    ]
    by_id = {d.id: d for d in alive}
    counts = Counter(d.model_id for d in alive)
    drafts = {d.model_id: d for d in alive if d.is_development}
    current = {
        e.model_id: e.current for e in tx.environments.find(name=contract.PRODUCTION) if e.current
    }
    return tuple(
        ModelView(
            model=model,
            deployments_count=counts[model.id],
            production=by_id.get(current.get(model.id, "")),
            development=drafts.get(model.id),
        )
        for model in models
    )
