"""A real store, real folders and the real build caches, looked at with a clock of our own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kingpost import contract
from kingpost.build.base import Runnable, Validation
from kingpost.build.builder import Builder
from kingpost.build.store import Store as BuildStore
from kingpost.contract import DeploymentStatus as S
from kingpost.contract import PromotionStatus
from kingpost.control.domain import Deployment, Promotion, Replica, ReplicaState, utc_now
from kingpost.control.events import Events
from kingpost.control.instances import CPU_TYPES
from kingpost.control.janitor import Janitor
from kingpost.control.platform import Platform, make_platform
from kingpost.control.store import Store
from kingpost.engine.base import Bind
from kingpost.engine.process import ProcessEngine
from kingpost.settings import DataFolder, Limits, SandboxMode, Settings
from tests.support.platform import wait_until

LIMITS = Limits(log_bytes_per_deployment=1000, max_downloads_bytes=200_000)
DAY = timedelta(days=1)


@dataclass
class House:
    """`now` is the janitor's clock."""

    data: DataFolder
    store: Store
    platform: Platform
    events: Events
    builder: Builder
    janitor: Janitor
    now: datetime

    def deployment(self, **fields: Any) -> Deployment:
        """A row with its folder."""
        deployment = Deployment(
            id=contract.new_id(),
            model_id="m",
            name=contract.new_id(),
            created_at=utc_now(),
            status_at=utc_now(),
            **{"status": S.ACTIVE, **fields},
        )
        with self.store.begin() as tx:
            tx.deployments.insert(deployment)
        self.log(deployment.id, "build", "a build", 0)
        return deployment

    def log(self, deployment_id: str, source: str, text: str, age_days: float) -> Path:
        folder = self.platform.logs.folder(deployment_id, source)
        folder.mkdir(parents=True, exist_ok=True)
        at = (self.now - age_days * DAY).timestamp()
        file = folder / f"{int(at * 1e9)}.log"
        file.write_text(text)
        os.utime(file, (at, at))
        return file

    def upload(self, content: bytes) -> tuple[str, Path]:
        """A finished upload: its digest and its folder."""
        upload = self.platform.uploads.begin(self.platform.teams.default.id)
        folder = self.platform.uploads.folder(upload)
        (folder / "whole").write_bytes(content)
        done = self.platform.uploads.finish(upload, folder / "whole")
        assert done.digest is not None
        return done.digest, folder


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = Settings(data=DataFolder(tmp_path), limits=LIMITS)
    store = Store(settings.data.database)
    store.migrate()
    events = Events()
    engine = ProcessEngine(settings.data, SandboxMode.OFF)
    builder = Builder(settings.data, engine, LIMITS)

    async def valid(config: dict[str, Any]) -> Validation:
        return Validation(parsed=config)

    platform = make_platform(
        settings, store, events=events, validate=valid, instance_types=CPU_TYPES
    )
    janitor = Janitor(
        settings,
        store,
        platform.uploads,
        platform.logs,
        builder,
        events,
        clock=lambda: made.now,
    )
    made = House(settings.data, store, platform, events, builder, janitor, utc_now())
    yield made
    await janitor.close()
    store.close()


async def test_uploads_and_archives_go_when_nobody_can_use_them(house: House) -> None:
    kept, _ = house.upload(b"pushed")
    house.deployment(archive=kept)
    unused, folder = house.upload(b"never pushed")
    (house.data.uploads / "KPUNKNOWN").mkdir()
    assert (await house.janitor.sweep())["uploads"] == 1
    assert house.platform.uploads.archive(unused).exists()
    house.now += timedelta(hours=2)
    done = await house.janitor.sweep()
    assert (done["uploads"], done["archives"]) == (2, 1)
    assert house.platform.uploads.archive(kept).exists()
    assert not house.platform.uploads.archive(unused).exists()
    assert not folder.exists()
    with house.store.begin() as tx:
        assert tx.uploads.find() == []


async def test_an_archive_that_was_uploaded_again_stays(house: House) -> None:
    digest, _ = house.upload(b"twice")
    old = (house.now - DAY).timestamp()
    os.utime(house.platform.uploads.archive(digest), (old, old))
    house.upload(b"twice")
    assert not house.platform.uploads.drop_archive(digest, old + 60)
    assert house.platform.uploads.archive(digest).exists()
    assert house.platform.uploads.drop_archive(digest, utc_now().timestamp() + 60)


async def test_folders_of_forgotten_deployments_go(house: House) -> None:
    stays, goes, at_once = (house.deployment() for _ in range(3))
    with house.store.begin() as tx:
        for one in (goes, at_once):
            tx.deployments.delete(id=one.id)
    house.events.forgotten(at_once.id)
    folder = house.data.deployments
    await asyncio.to_thread(wait_until, lambda: not (folder / at_once.id).exists())
    assert (folder / goes.id).exists()
    await house.janitor.sweep()
    assert [path.name for path in folder.iterdir()] == [stays.id]


async def test_logs_are_kept_for_days_and_within_bounds(house: House) -> None:
    deployment = house.deployment()
    runs, ended, full = contract.new_id(), contract.new_id(), contract.new_id()
    with house.store.begin() as tx:
        tx.replicas.insert(
            Replica(
                id=runs,
                deployment_id=deployment.id,
                state=ReplicaState.READY,
                created_at=house.now,
            )
        )
    stale = house.log(deployment.id, runs, "long ago", 9)
    open_ = house.log(deployment.id, runs, "last line", 8)
    house.log(deployment.id, ended, "over", 8)
    first = house.log(deployment.id, full, "x" * 900, 2)
    second = house.log(deployment.id, full, "y" * 900, 1)
    old_build = house.log(deployment.id, "build", "first build", 10)
    await house.janitor.sweep()
    assert [f.exists() for f in (stale, open_, first, second, old_build)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert not house.platform.logs.folder(deployment.id, ended).exists()
    assert len(list(house.platform.logs.folder(deployment.id).iterdir())) == 1


async def test_the_log_of_a_build_under_way_stays(house: House) -> None:
    deployment = house.deployment(status=S.BUILDING)
    house.now += 10 * DAY
    await house.janitor.sweep()
    assert len(list(house.platform.logs.folder(deployment.id).iterdir())) == 1


async def test_old_promotions_go(house: House) -> None:
    ended = Promotion(
        id="old",
        model_id="m",
        environment="production",
        deployment_id="d",
        previous_id=None,
        scale_down_previous=True,
        status=PromotionStatus.SUCCEEDED,
        created_at=house.now - 31 * DAY,
    )
    with house.store.begin() as tx:
        tx.promotions.insert(ended)
        for name, changes in {
            "young": {"created_at": house.now - 29 * DAY},
            "under way": {"status": PromotionStatus.RELEASING},
        }.items():
            tx.promotions.insert(msgspec.structs.replace(ended, id=name, **changes))
    assert (await house.janitor.sweep())["promotions"] == 1
    with house.store.begin() as tx:
        assert {p.id for p in tx.promotions.find()} == {"young", "under way"}


def cached(store: BuildStore, key: str, size: int, used_at: float) -> Path:
    work, final = store.begin(key)
    (work / "file").write_bytes(os.urandom(size))
    store.publish(work, final, {})
    os.utime(final / "manifest.json", (used_at, used_at))
    return final


async def test_caches_keep_what_a_deployment_starts_from(house: House) -> None:
    store = next(s for s in house.builder.stores if s.root == house.data.environments)
    long_ago = (utc_now() - 40 * DAY).timestamp()
    used, unused = (cached(store, key, 1000, long_ago) for key in ("used", "unused"))
    fresh = cached(store, "fresh", 1000, utc_now().timestamp())
    bind = Bind(str(used / "venv"), str(used / "venv"))
    runnable = Runnable(argv=("x",), cwd="/", port=1, binds=(bind,))
    house.deployment(status=S.INACTIVE, runnable=runnable)
    assert (await house.janitor.sweep())["caches"] == 1
    assert (used.exists(), unused.exists(), fresh.exists()) == (True, False, True)


async def test_downloads_stay_within_their_limit(house: House) -> None:
    for team, size in (("small", 50_000), ("large", 400_000)):
        (house.data.cache / "uv" / team).mkdir(parents=True)
        (house.data.cache / "uv" / team / "wheel").write_bytes(os.urandom(size))
    assert (await house.janitor.sweep())["download_bytes"] >= 400_000
    assert [path.name for path in (house.data.cache / "uv").iterdir()] == ["small"]
    assert (await house.janitor.sweep())["download_bytes"] == 0


async def test_what_fails_does_not_keep_the_rest(house: House, tmp_path: Path) -> None:
    stays = house.deployment()
    (house.data.deployments / "orphan").mkdir()
    house.data.uploads.write_text("no folder")
    done = await house.janitor.sweep()
    assert "uploads" not in done
    assert done["deployments"] == 1
    assert (house.data.deployments / stays.id).exists()
