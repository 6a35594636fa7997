"""The logs API: defaults and bounds of its window, and lines as the contract has them."""

from __future__ import annotations

import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost import contract
from kingpost.api import bodies
from kingpost.api.rest.logs import log_query
from kingpost.engine.logfile import LogWriter
from kingpost.errors import InvalidInputError
from tests.support import openapi
from tests.support.platform_app import World

S = 1_000_000_000
NOW = 1_795_277_895 * S


def test_the_window_is_the_last_30_minutes_newest_first() -> None:
    query = log_query(bodies.LogFilters(), NOW)
    assert (query.start_ns, query.end_ns) == (NOW - 1800 * S, NOW)
    assert query.newest_first
    assert query.limit == 500


@given(st.none() | st.integers(), st.none() | st.integers())
def test_any_window_is_bounded_or_refused(start: int | None, end: int | None) -> None:
    filters = bodies.LogFilters(start_epoch_millis=start, end_epoch_millis=end)
    try:
        query = log_query(filters, NOW)
    except InvalidInputError:
        return
    assert 0 <= query.start_ns <= query.end_ns
    assert query.end_ns - query.start_ns <= contract.LOG_RETENTION_S * S
    if start is not None:
        assert query.start_ns == start * 1_000_000


async def test_lines_of_build_and_replica(client: httpx.AsyncClient, world: World) -> None:
    deployment = world.push("demo")
    world.activate(deployment.id, "production")
    logs = world.platform.logs
    build = LogWriter(str(logs.folder(deployment.id)), 1 << 20)
    build.line(b"b", "Build starts")
    replica = LogWriter(str(logs.folder(deployment.id, "r1")), 1 << 20)
    replica.feed(b"e", b'{"message": "served", "levelname": "ERROR", "request_id": "q1"}\nplain\n')
    for writer in (build, replica):
        writer.close()
    root = f"/v1/models/{deployment.model_id}"
    path = f"{root}/deployments/{deployment.id}/logs"
    end = time.time_ns() // 1_000_000 + 60_000
    answer = (await client.post(path, json={"end_epoch_millis": end})).json()
    openapi.check("POST", path, answer)
    assert [line["message"] for line in answer["logs"]] == ["plain", "served", "Build starts"]
    assert all(
        line["timestamp"].isdigit() and len(line["timestamp"]) == 19 for line in answer["logs"]
    )
    assert answer["logs"][1]["level"] == "ERROR"
    assert answer["logs"][1]["request_id"] == "q1"
    assert [line["replica"] for line in answer["logs"]] == ["r1", "r1", None]

    async def messages(query: str, at: str = path) -> list[str]:
        response = await client.get(f"{at}?end_epoch_millis={end}&{query}")
        openapi.check("GET", at, response.json())
        return [line["message"] for line in response.json()["logs"]]

    assert await messages("direction=asc") == ["Build starts", "served", "plain"]
    assert await messages("limit=1") == ["plain"]
    assert await messages("min_level=INFO") == ["served"]
    assert await messages("includes=l&includes=i&excludes=B") == ["plain"]
    assert await messages("replica=r1&search_pattern=^s") == ["served"]
    assert await messages("request_id=q1") == ["served"]
    environment = f"{root}/environments/production/logs"
    assert await messages("limit=1", environment) == ["plain"]
    assert await messages("component=build") == ["Build starts"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("direction=up", "direction"),
        ("min_level=LOUD", "min_level"),
        ("start_epoch_millis=1&end_epoch_millis=0", "start_epoch_millis"),
        ("start_epoch_millis=1", "7 days"),
        ("end_epoch_millis=-5", "end_epoch_millis"),
        ("search_pattern=(", "search_pattern"),
        (f"search_pattern={'x' * 257}", "search_pattern"),
        ("&".join(["includes=a"] * 9), "includes"),
    ],
)
async def test_what_is_asked_wrongly(
    client: httpx.AsyncClient, world: World, query: str, names: str
) -> None:
    deployment = world.push("demo")
    response = await client.get(
        f"/v1/models/{deployment.model_id}/deployments/{deployment.id}/logs?{query}"
    )
    assert response.status_code == 400
    assert response.json()["code"] == "VALIDATION_ERROR"
    assert names in response.json()["message"]
