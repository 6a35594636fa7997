"""Where a key goes: the remotes file, the choice of a remote, and what may not happen to a key."""

import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.client import remotes
from kingpost.client.remote import (
    BASETEN_URL,
    Remote,
    check_key,
    is_loopback,
    normalize_url,
    refuse_clear_key,
    segment,
)
from kingpost.client.remotes import Remotes
from kingpost.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from kingpost.settings import DataFolder, Settings, write_settings

names = st.from_regex(r"[0-9A-Za-z][0-9A-Za-z_.\-]{0,20}", fullmatch=True)
urls = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https"]),
    st.from_regex(r"[a-z][a-z0-9\-]{0,10}(\.[a-z]{1,5})?", fullmatch=True),
    st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format)),
).map(normalize_url)
stored = st.builds(
    Remote,
    name=names,
    url=urls,
    api_key=st.none() | st.text(),
    insecure=st.booleans(),
    ca_file=st.none() | st.text(),
)


@given(st.lists(stored, max_size=5), st.none() | names)
def test_the_file_keeps_what_it_is_given(entries: list[Remote], default: str | None) -> None:
    kept = Remotes({r.name: r for r in entries}, default)
    assert remotes.parse(remotes.render(kept)) == kept


@given(st.text())
def test_any_text_is_read_or_refused_with_a_message(text: str) -> None:
    try:
        remotes.parse(text)
    except InvalidInputError as error:
        assert error.message  # noqa: PT017


@given(st.text())
def test_an_address_is_normal_or_refused(text: str) -> None:
    try:
        url = normalize_url(text)
    except InvalidInputError:
        return
    assert normalize_url(url) == url


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("http://LOCALHOST:8000/", "http://localhost:8000"),
        ("https://Host.example:443", "https://host.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://app.baseten.co", BASETEN_URL),
        ("http://h:80", "http://h"),
    ],
)
def test_addresses_in_one_spelling(given_url: str, normal: str) -> None:
    assert normalize_url(given_url) == normal


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8000", "ftp://h", "http://", "http://user:pw@h", "http://h/path"),
        *("http://h?q=1", "http://h:port", "http://h:99999", "http://a b", "http://h\\@evil"),
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidInputError):
        normalize_url(url)


def test_loopback_is_this_machine_only() -> None:
    for url in ("http://localhost:1", "http://api.localhost", "http://127.8.9.1", "http://[::1]"):
        assert is_loopback(url)
    for url in ("http://localhost.example", "http://10.0.0.1", "http://xlocalhost"):
        assert not is_loopback(url)


@given(st.text(min_size=1))
def test_a_segment_stays_one(text: str) -> None:
    quoted = segment(text)
    assert not set(quoted) & set("/?#")
    assert quoted not in {".", ".."}


def test_a_saved_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "kingpost" / "remotes.toml"
    with remotes.editing(path) as file:
        file.save(file.remotes.put(Remote("work", "https://w", "k.s"), make_default=True))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert remotes.load(path).by_name["work"].api_key == "k.s"
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".remotes-")] == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_touch_is_not_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "remotes.toml"
    path.write_text(remotes.render(Remotes({"w": Remote("w", "https://w", "k.secret")})))
    path.chmod(mode)
    with pytest.raises(ForbiddenError) as refused:
        remotes.load(path)
    assert f"chmod 600 {path}" in refused.value.message
    assert "k.secret" not in refused.value.message


def test_which_remote_is_meant(tmp_path: Path) -> None:
    work, home = Remote("work", "https://w", "kw"), Remote("home", "https://h", "kh")
    known = Remotes({"work": work, "home": home}, "work")
    env = {"HOME": str(tmp_path), "KINGPOST_REMOTE": "home"}
    assert remotes.resolve("work", known, env) == work
    assert remotes.resolve(None, known, env) == home
    assert remotes.resolve(None, known, {"HOME": str(tmp_path)}) == work
    with pytest.raises(NotFoundError, match="home, work"):
        remotes.resolve("other", known, env)


def test_this_machine_needs_no_login(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    assert remotes.resolve(None, Remotes(), env).api_key is None
    folder = tmp_path / "data" / "kingpost"
    folder.mkdir(parents=True)
    (folder / "admin.key").write_text("local.key\n")
    local = remotes.resolve(None, Remotes(), env)
    assert (local.url, local.api_key) == ("http://localhost:8000", "local.key")
    named = remotes.resolve(None, Remotes(), {**env, "KINGPOST_API_KEY": "mine.key"})
    assert named.api_key == "mine.key"
    # The machine's own key is for this machine.
    assert remotes.resolve("https://elsewhere", Remotes(), env).api_key is None


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"port": 8123}, "http://127.0.0.1:8123"),
        ({"host": "0.0.0.0", "port": 1}, "http://localhost:1"),
        ({"host": "::1"}, "http://[::1]:8000"),
        ({"host": "gpu-box", "tls_cert": Path("/c")}, "https://localhost:8000"),
    ],
)
def test_this_machines_platform_is_found_on_its_port(
    tmp_path: Path, changes: dict[str, Any], url: str
) -> None:
    data = DataFolder(tmp_path / "kingpost")
    data.run.mkdir(parents=True)
    write_settings(Settings(data=data, **changes), data.run / "settings.json")
    env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    assert remotes.resolve(None, Remotes(), env).url == url


@given(st.binary())
def test_whatever_was_left_leads_somewhere(left: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = DataFolder(Path(folder))
        data.run.mkdir()
        (data.run / "settings.json").write_bytes(left)
        assert is_loopback(remotes.local_url(data))


def test_a_kingpost_key_never_goes_to_baseten(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "KINGPOST_API_KEY": "kingpost.key", "BASETEN_API_KEY": "b.key"}
    assert remotes.resolve("baseten", Remotes(), env).api_key == "b.key"
    assert remotes.resolve("https://app.baseten.co", Remotes(), env).api_key == "b.key"
    assert remotes.resolve("local", Remotes(), env).api_key == "kingpost.key"


def test_a_key_does_not_cross_a_network_in_clear_without_consent() -> None:
    with pytest.raises(ConflictError) as refused:
        refuse_clear_key(Remote("gpu", "http://10.0.0.5:8000", "k.secret"))
    assert "k.secret" not in refused.value.message
    refuse_clear_key(Remote("gpu", "http://10.0.0.5:8000", "k.secret", insecure=True))
    refuse_clear_key(Remote("gpu", "https://10.0.0.5:8000", "k.secret"))
    refuse_clear_key(Remote("gpu", "http://127.0.0.1:8000", "k.secret"))


def test_a_remote_does_not_show_its_key() -> None:
    assert "secret" not in repr(Remote("w", "https://w", "k.secret"))


@pytest.mark.parametrize("key", ["", "  ", "a b", "a\nb", "clé"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(InvalidInputError):
        check_key(key)
