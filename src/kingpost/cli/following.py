"""Watches what was asked for come true: a deployment's log until it is ready, a promotion's end."""

from __future__ import annotations

import time
from typing import Any

import click

from kingpost.cli.session import Session
from kingpost.client import logs
from kingpost.client.logs import Line
from kingpost.client.remote import segment
from kingpost.client.resolve import Json, find_environment
from kingpost.client.wait import Outcome, wait_ready
from kingpost.errors import BuildFailedError, UnavailableError

LAST_LINES = 50
LOG_INTERVAL_S = 0.5


class WaitedTooLongError(UnavailableError):
    """The time that a user gave has passed; the work itself goes on."""

    code = "TIMEOUT"


def watch(
    session: Session,
    model: Json,
    deployment: Json,
    timeout_s: float | None,
    environment: str | None = None,
    *,
    since_ms: int | None = None,
) -> Json:
    """Show the log until the deployment is ready, and until the environment points to it.

    The log is shown from its beginning, or from `since_ms` of the epoch.

    Raises BuildFailedError with the last lines of the log when it fails.
    """
    api = session.api()
    started = time.monotonic()
    start_ms = logs.created_ms(deployment) if since_ms is None else since_ms
    shown = _Log(session, model, deployment, start_ms)
    with session.out.status(deployment["status"]) as say:

        def on_poll(now: Json) -> None:
            shown.update()
            say(
                f"{now['status']} ({time.monotonic() - started:.0f} s)"
                if session.out.interactive
                else now["status"]
            )

        deployment, outcome = wait_ready(api, deployment, timeout_s=timeout_s, on_poll=on_poll)
        shown.update(at_once=True)
        _check(session, model, deployment, outcome, shown)
        if environment is not None:
            left_s = None if timeout_s is None else timeout_s - (time.monotonic() - started)
            say(f"promoting to {environment}")
            wait_promoted(session, model, deployment["id"], environment, left_s)
            path = f"/v1/models/{segment(model['id'])}/deployments/{segment(deployment['id'])}"
            deployment = api.get(path)
    return deployment


def promote(
    session: Session,
    model: Json,
    deployment: Json,
    environment: str,
    *,
    scale_down_previous: bool = True,
    preserve_instance_type: bool = True,
    wait: bool = True,
    timeout_s: float | None = None,
) -> Json:
    """Promote an existing deployment; the answer is the one that the environment will point to."""
    api = session.api()
    asked_ms = time.time_ns() // 1_000_000
    path = f"/v1/models/{segment(model['id'])}/environments/{segment(environment)}/promote"
    promoted: Json = api.post(
        path,
        {
            "deployment_id": deployment["id"],
            "scale_down_previous_deployment": scale_down_previous,
            "preserve_env_instance_type": preserve_instance_type,
        },
    )
    if not wait:
        return promoted
    copied = promoted["id"] != deployment["id"]
    since_ms = logs.created_ms(promoted) if copied else asked_ms
    return watch(session, model, promoted, timeout_s, environment, since_ms=since_ms)


def wait_promoted(
    session: Session, model: Json, deployment_id: str, environment: str, timeout_s: float | None
) -> None:
    """Return when the environment points to the deployment; raise when its promotion has failed."""
    started = time.monotonic()
    idle_answers = 0
    while True:
        now = find_environment(session.api(), model, environment)
        current = now["current_deployment"]
        if current is not None and current["id"] == deployment_id:
            return
        promotion = now.get("in_progress_promotion")
        if promotion is not None and promotion["status"] in {"FAILED", "CANCELED"}:
            reason = promotion.get("error_message") or promotion["status"].lower()
            raise BuildFailedError(f"The promotion to {environment} did not succeed: {reason}.")
        idle_answers = 0 if promotion or now.get("candidate_deployment") else idle_answers + 1
        if idle_answers >= 10:
            raise BuildFailedError(
                f"{environment} points elsewhere and no promotion is under way. Look at "
                f"`kingpost env show {model['name']} {environment}`."
            )
        if timeout_s is not None and time.monotonic() - started > timeout_s:
            raise WaitedTooLongError(
                f"The promotion to {environment} still goes on. See it with "
                f"`kingpost env show {model['name']} {environment}`."
            )
        time.sleep(0.3)


def tail(session: Session, model: Json, deployment: Json) -> None:
    """Show a deployment's log until the user interrupts."""
    path = logs.deployment_path(model["id"], deployment["id"])
    start_ms = time.time_ns() // 1_000_000 - 1_000
    for line in logs.follow(session.api(), path, {}, start_ms):
        show(session, line)


def show(session: Session, line: Line, *, err: bool = False) -> None:
    """One line of a log, for people or as JSON."""
    if session.out.as_json and not err:
        session.out.json(as_json(line))
        return
    stamp = time.strftime("%H:%M:%S", time.localtime(line.at_ns / 1e9))
    replica = f" {line.replica}" if line.replica else ""
    click.echo(click.style(f"{stamp}{replica} ", dim=True) + line.message, err=err)


def as_json(line: Line) -> dict[str, Any]:
    return {
        "timestamp": str(line.at_ns),
        "message": line.message,
        "replica": line.replica,
        "level": line.level,
        "request_id": line.request_id,
    }


class _Log:
    """The log of a deployment while one waits: shown as it comes, its end kept for a failure."""

    def __init__(self, session: Session, model: Json, deployment: Json, start_ms: int) -> None:
        self._session = session
        self._path = logs.deployment_path(model["id"], deployment["id"])
        self._follower = logs.follower_for(session.api(), start_ms)
        self._next_s = 0.0
        self.last: list[Line] = []

    def update(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now < self._next_s:
            return
        self._next_s = now + LOG_INTERVAL_S
        try:
            lines = list(logs.poll(self._session.api(), self._path, {}, self._follower))
        except UnavailableError:
            return  # the log is a help; whether to go on waiting is decided by the status
        for line in lines:
            if not self._session.out.as_json:
                show(self._session, line, err=True)
        self.last = [*self.last, *lines][-LAST_LINES:]


def _check(session: Session, model: Json, deployment: Json, outcome: Outcome, shown: _Log) -> None:
    if outcome is Outcome.READY:
        return
    where = session.api().remote.logs_url(model["id"], deployment["id"])
    if outcome is Outcome.PENDING:
        raise WaitedTooLongError(
            f"Still {deployment['status']}; it goes on without being watched. Its log: {where}"
        )
    end = "\n".join(line.message for line in shown.last)
    lines = f" The end of its log:\n{end}\n" if end and session.out.as_json else " "
    raise BuildFailedError(f"The deployment is {deployment['status']}.{lines}All of it: {where}")
