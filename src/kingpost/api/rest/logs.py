"""Logs of a deployment and of an environment, by GET and by POST."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from kingpost import contract
from kingpost.api import bodies, shapes
from kingpost.api.rest.call import Call, Door
from kingpost.api.rest.deployments import found
from kingpost.api.views import log_view
from kingpost.control.logfiles import LogQuery
from kingpost.errors import InvalidInputError

_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_MAX_MILLIS: Final = 2**63 // _NS_PER_MS - 1


async def get_deployment_logs(call: Call) -> shapes.LogLines:
    return await _lines(call, (found(call).id,), call.query(bodies.LogFilters))


async def post_deployment_logs(call: Call) -> shapes.LogLines:
    return await _lines(call, (found(call).id,), await call.body(bodies.LogFilters))


async def get_environment_logs(call: Call) -> shapes.LogLines:
    """Of the deployment that serves the environment and of the one on its way to it."""
    environment = call.platform.environments.get(
        call.team_id, call.path("model_id"), call.path("env_name")
    )
    ids = tuple(i for i in (environment.current, environment.candidate) if i)
    return await _lines(call, ids, call.query(bodies.LogFilters))


def log_query(filters: bodies.LogFilters, now_ns: int) -> LogQuery:
    """With the contract's defaults: the last 30 minutes, newest first, 500 lines."""
    end_ns = _nanoseconds("end_epoch_millis", filters.end_epoch_millis, now_ns)
    default_ns = max(0, end_ns - contract.DEFAULT_LOG_WINDOW_S * _NS_PER_S)
    start_ns = _nanoseconds("start_epoch_millis", filters.start_epoch_millis, default_ns)
    if start_ns > end_ns:
        raise InvalidInputError("start_epoch_millis is later than the end of the window.")
    if end_ns - start_ns > contract.LOG_RETENTION_S * _NS_PER_S:
        raise InvalidInputError(
            "The window from start_epoch_millis to end_epoch_millis is longer than 7 days, "
            "which is the limit. Ask for a shorter one."
        )
    return LogQuery(
        start_ns=start_ns,
        end_ns=end_ns,
        newest_first=filters.direction != "asc",
        limit=filters.limit or contract.DEFAULT_LOG_LIMIT,
        min_level=filters.min_level,
        replica=filters.replica,
        request_id=filters.request_id,
        component=filters.component,
        search_pattern=filters.search_pattern,
        includes=filters.includes,
        excludes=filters.excludes,
    )


async def _lines(call: Call, ids: tuple[str, ...], filters: bodies.LogFilters) -> shapes.LogLines:
    query = log_query(filters, time.time_ns())
    lines = await asyncio.to_thread(call.platform.logs.query, ids, query)
    return shapes.LogLines(logs=tuple(map(log_view, lines)))


def _nanoseconds(name: str, millis: int | None, default_ns: int) -> int:
    if millis is None:
        return default_ns
    if not 0 <= millis <= _MAX_MILLIS:
        raise InvalidInputError(f"{name} is {millis}; expected milliseconds since 1970.")
    return millis * _NS_PER_MS


DOORS = (
    Door("GET", "/v1/models/{model_id}/deployments/{deployment_id}/logs", get_deployment_logs),
    Door("POST", "/v1/models/{model_id}/deployments/{deployment_id}/logs", post_deployment_logs),
    Door("GET", "/v1/models/{model_id}/environments/{env_name}/logs", get_environment_logs),
)
