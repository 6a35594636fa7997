from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kingpost.build.base import BuildRequest
from kingpost.build.config import WeightsSource
from kingpost.build.fetch import Expected, Fetcher, FetchError
from kingpost.build.progress import Progress
from kingpost.build.sources import S3Account
from kingpost.build.weights import Weights, files_of
from kingpost.errors import BuildFailedError
from kingpost.settings import DataFolder
from tests.support.building import config, workshop
from tests.support.hub import Hub, hub

REPO = "owner/tiny"
SOURCE = WeightsSource(f"hf://{REPO}", "/models/tiny")


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "hub" / REPO
    (folder / "sub").mkdir(parents=True)
    (folder / "model.bin").write_bytes(bytes(range(256)) * 4000)
    (folder / "config.json").write_text("{}")
    (folder / "sub/notes.md").write_text("notes")
    with hub(tmp_path / "hub") as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


class Shelf:
    """Weights without the rest of a build."""

    def __init__(self, root: Path, secrets: dict[str, str]) -> None:
        self.fetcher = Fetcher()
        self.weights = Weights(DataFolder(root), self.fetcher)
        self.secrets = secrets
        self.lines: list[str] = []

    async def get(self, source: WeightsSource = SOURCE, user: str = "team") -> tuple[Path, bool]:
        async def secret(name: str) -> str | None:
            return self.secrets.get(name)

        progress = Progress(self.lines.append)
        progress.step("Weights")
        entry, reused = await self.weights.get(source, user, secret, progress)
        return files_of(entry), reused


@pytest.fixture
async def shelf(tmp_path: Path, loopback: Hub) -> Shelf:
    return Shelf(tmp_path / "data", {})


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_a_repository_is_fetched_once_and_shared(shelf: Shelf, loopback: Hub) -> None:
    folder, reused = await shelf.get()
    assert not reused
    assert names(folder) == {"model.bin", "config.json", "sub/notes.md"}
    assert (folder / "model.bin").read_bytes() == (loopback.root / REPO / "model.bin").read_bytes()
    assert any("3 files, 1000.0 KiB to fetch" in line for line in shelf.lines)
    asked = len(loopback.fetched())
    assert await shelf.get() == (folder, True)
    assert len(loopback.fetched()) == asked
    other, _ = await shelf.get(user="another")
    assert other != folder
    await shelf.fetcher.close()


async def test_a_new_revision_fetches_only_what_changed(shelf: Shelf, loopback: Hub) -> None:
    old, _ = await shelf.get()
    (loopback.root / REPO / "config.json").write_text('{"new": 1}')
    loopback.asked.clear()
    new, reused = await shelf.get()
    assert not reused
    assert (new / "config.json").read_text() == '{"new": 1}'
    assert (new / "model.bin").stat().st_ino == (old / "model.bin").stat().st_ino
    assert not any("model.bin" in path for path in loopback.fetched())
    await shelf.fetcher.close()


async def test_patterns(shelf: Shelf) -> None:
    source = WeightsSource(
        f"hf://{REPO}", "/m", allow=("*.bin", "sub/"), ignore=("*.md", "other/*")
    )
    folder, _ = await shelf.get(source)
    assert names(folder) == {"model.bin"}
    with pytest.raises(BuildFailedError, match="no file is left"):
        await shelf.get(WeightsSource(f"hf://{REPO}", "/m", allow=("*.safetensors",)))
    await shelf.fetcher.close()


async def test_a_broken_download_goes_on_where_it_ended(shelf: Shelf, loopback: Hub) -> None:
    loopback.break_after = 300_000
    folder, _ = await shelf.get(WeightsSource(f"hf://{REPO}", "/m", allow=("*.bin",)))
    assert loopback.ranges
    assert (folder / "model.bin").read_bytes() == (loopback.root / REPO / "model.bin").read_bytes()
    await shelf.fetcher.close()


async def test_a_build_that_was_killed_goes_on_too(tmp_path: Path, loopback: Hub) -> None:
    url = f"{loopback.url}/{REPO}/resolve/main/model.bin"
    whole = (loopback.root / REPO / "model.bin").read_bytes()
    target = tmp_path / "got/model.bin"
    target.parent.mkdir()
    target.with_name("model.bin.part").write_bytes(whole[:1000])
    fetcher = Fetcher()
    from hashlib import sha256

    await fetcher.download(url, target, expected=Expected(len(whole), sha256(whole).hexdigest()))
    assert loopback.ranges == ["bytes=1000-"]
    assert target.read_bytes() == whole
    with pytest.raises(FetchError, match="checksum"):
        await fetcher.download(url, tmp_path / "other", expected=Expected(None, "0" * 64))
    assert names(tmp_path) >= {"got/model.bin"}
    assert not (tmp_path / "other").exists()
    await fetcher.close()


async def test_a_secret_opens_a_private_repository(
    shelf: Shelf, loopback: Hub, tmp_path: Path
) -> None:
    loopback.token = "hf_very_secret"
    private = WeightsSource(f"hf://{REPO}", "/m", secret_name="hf_token")
    with pytest.raises(BuildFailedError, match="kingpost secrets set hf_token"):
        await shelf.get(private)
    with pytest.raises(BuildFailedError, match="auth_secret_name"):
        await shelf.get()
    shelf.secrets["hf_token"] = "hf_wrong"
    with pytest.raises(BuildFailedError, match="may not open it"):
        await shelf.get(private)
    shelf.secrets["hf_token"] = "hf_very_secret"
    folder, _ = await shelf.get(private)
    assert names(folder) == {"model.bin", "config.json", "sub/notes.md"}
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not any(b"hf_very_secret" in path.read_bytes() for path in kept)
    assert "hf_very_secret" not in "\n".join(shelf.lines)
    await shelf.fetcher.close()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://owner/none", "404"),
        (f"hf://{REPO}@nosuch", "404"),
        ("gs://bucket/x", "not supported"),
        ("azure://account/container/x", "not supported"),
    ],
)
async def test_what_can_not_be_had(shelf: Shelf, source: str, words: str) -> None:
    with pytest.raises(BuildFailedError, match=words):
        await shelf.get(WeightsSource(source, "/m"))
    await shelf.fetcher.close()


async def test_nothing_is_fetched_from_this_machine_unless_trusted(loopback: Hub) -> None:
    fetcher = Fetcher(trusted=())
    for url in (
        loopback.url,
        "http://localhost:1/x",
        "http://[::1]:1/x",
        "http://169.254.169.254/",
    ):
        with pytest.raises(FetchError, match="this machine"):
            await fetcher.get(url)
    await fetcher.close()
    assert loopback.asked == []


async def test_one_file_by_address(shelf: Shelf, loopback: Hub) -> None:
    source = WeightsSource(f"{loopback.url}/{REPO}/model.bin", "/m")
    folder, reused = await shelf.get(source)
    assert names(folder) == {"model.bin"}
    assert not reused
    assert (await shelf.get(source))[1]
    await shelf.fetcher.close()


def test_s3_requests_are_signed_as_the_specification_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The keys and the answer are of the public description of AWS Signature Version 4 for S3."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.amazonaws.com")
    secret = {
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "region": "us-east-1",
    }
    account = S3Account.read(json.dumps(secret))
    url, headers = account.request(
        "examplebucket",
        "",
        {"list-type": "2", "prefix": "a b/"},
        dt.datetime(2013, 5, 24, tzinfo=dt.UTC),
    )
    assert url == "https://s3.amazonaws.com/examplebucket?list-type=2&prefix=a%20b%2F"
    assert (
        "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
        in (headers["authorization"])
    )
    assert secret["secret_access_key"] not in repr(account)
    with pytest.raises(BuildFailedError, match="access_key_id"):
        S3Account.read("no json")


async def test_replicas_see_weights_read_only(tmp_path: Path, loopback: Hub) -> None:
    code = """
import pathlib
class Model:
    def __init__(self, **kwargs): pass
    def load(self): pass
    def predict(self, request):
        size = len(pathlib.Path("/models/tiny/model.bin").read_bytes())
        cached = pathlib.Path("/app/model_cache/old/config.json").read_text()
        try:
            pathlib.Path("/models/tiny/x").write_text("x")
        except OSError:
            return [size, cached, "read-only"]
        return [size, cached, "writable"]
"""
    async with workshop(tmp_path / "data") as shop:
        fields = {
            "weights": [
                {
                    "source": f"hf://{REPO}@main",
                    "mount_location": "/models/tiny",
                    "auth_secret_name": "token",
                },
                {
                    "source": f"hf://{REPO}@{loopback.commit(REPO)}",
                    "mount_location": "/app/model_cache/old",
                    "auth_secret_name": "hf_access_token",
                    "allow_patterns": ["*.json"],
                },
            ],
        }
        loopback.token = "t0ken"

        async def secret(name: str) -> str | None:
            return {"token": "t0ken", "hf_access_token": "t0ken"}.get(name)

        files = {"config.yaml": config(**fields), "model/model.py": code}
        runnable = await shop.build(files, secret=secret)
        assert "t0ken" not in repr(BuildRequest("d", "u", tmp_path, secret=secret))
        assert any(line.startswith("[4/4] Weights: 2 sources, 2 fetched") for line in shop.lines)
        async with shop.serving(runnable) as replica:
            assert await replica.predict({}) == [1_024_000, "{}", "read-only"]
        await shop.build(files, secret=secret)
        assert any("0 fetched, 2 from the cache" in line for line in shop.lines)
