from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.build.archive import ArchiveError, unpack
from kingpost.errors import KingpostError, TooLargeError
from kingpost.settings import Limits
from tests.support.archives import file, special, tar_bytes

SMALL = Limits(max_unpacked_bytes=1_000_000, max_archive_files=50)
GOOD = tar_bytes(
    file("config.yaml", b"model_name: m\n"),
    special("model", tarfile.DIRTYPE),
    file("model/model.py", b"class Model: ...", mode=0o6755),
    special("model/same.py", tarfile.SYMTYPE, linkname="model.py"),
    special("model/linked.py", tarfile.LNKTYPE, linkname="model/model.py"),
)


def unpacked(tmp_path: Path, data: bytes, limits: Limits = SMALL) -> Path:
    archive, target = tmp_path / "a.tar", tmp_path / "out"
    archive.write_bytes(data)
    unpack(archive, target, limits)
    return target


@pytest.mark.parametrize("data", [GOOD, gzip.compress(GOOD)], ids=["tar", "gzip"])
def test_a_truss_is_unpacked(tmp_path: Path, data: bytes) -> None:
    target = unpacked(tmp_path, data)
    assert (target / "config.yaml").read_text() == "model_name: m\n"
    assert (target / "model/same.py").read_bytes() == b"class Model: ..."
    assert (target / "model/linked.py").stat().st_ino == (target / "model/model.py").stat().st_ino
    assert (target / "model/model.py").stat().st_mode & 0o7777 == 0o755
    assert (target / "config.yaml").stat().st_mode & 0o7777 == 0o644


HOSTILE = {
    "absolute": tar_bytes(file("/etc/cron.d/x")),
    "upwards": tar_bytes(file("../x")),
    "upwards inside": tar_bytes(file("a/../../x")),
    "through a link": tar_bytes(
        special("l", tarfile.SYMTYPE, linkname="../../../tmp"), file("l/x")
    ),
    "absolute link": tar_bytes(special("l", tarfile.SYMTYPE, linkname="/etc/passwd")),
    "link out": tar_bytes(special("l", tarfile.SYMTYPE, linkname="../..")),
    "chain of links out": tar_bytes(
        special("a", tarfile.SYMTYPE, linkname="b/.."),
        special("b", tarfile.SYMTYPE, linkname="../elsewhere"),
    ),
    "hard link out": tar_bytes(special("h", tarfile.LNKTYPE, linkname="/etc/passwd")),
    "hard link to nothing": tar_bytes(special("h", tarfile.LNKTYPE, linkname="none")),
    "hard link to a link": tar_bytes(
        special("l", tarfile.SYMTYPE, linkname="x"), special("h", tarfile.LNKTYPE, linkname="l")
    ),
    "character device": tar_bytes(special("d", tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "block device": tar_bytes(special("d", tarfile.BLKTYPE)),
    "pipe": tar_bytes(special("p", tarfile.FIFOTYPE)),
    "newline in a name": tar_bytes(file("a\nb")),
    "long name": tar_bytes(file("a" * 300)),
    "deep path": tar_bytes(file("a/" * 400 + "x")),
    "file and folder": tar_bytes(file("a"), file("a/b")),
    "folder and file": tar_bytes(file("a/b"), file("a")),
    "no tar": b"model_name: hello\n" * 100,
    "empty": b"",
    "truncated in a file": GOOD[:700],
    "truncated between files": GOOD[:1024],
    "without an end": GOOD[: len(GOOD) - 20 * 512 + 2560],
    "truncated gzip": gzip.compress(GOOD)[:120],
    "no real gzip": b"\x1f\x8b" + b"x" * 100,
    "huge extended header": gzip.compress(
        special("x", tarfile.XHDTYPE, size=2**33)[0].tobuf() + bytes(40_000_000)
    ),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        unpacked(tmp_path, data)
    assert os.listdir(tmp_path) == ["a.tar"]
    assert str(tmp_path) not in caught.value.message


def test_a_bomb_is_refused_early(tmp_path: Path) -> None:
    bomb = gzip.compress(tar_bytes(file("zeros", bytes(50_000_000))))
    with pytest.raises(TooLargeError):
        unpacked(tmp_path, bomb)
    assert not (tmp_path / "out").exists()


def test_too_many_files_and_too_large_an_upload(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match="more than 50 files"):
        unpacked(tmp_path, tar_bytes(*(file(f"f{n}", b"") for n in range(51))))
    with pytest.raises(TooLargeError, match=r"at most 1\.0 KiB"):
        unpacked(tmp_path, GOOD, Limits(max_archive_bytes=1024))


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("s").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ArchiveError):
        unpacked(tmp_path, bytes(header) + bytes(1024))


def test_it_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(GOOD)
    with pytest.raises(InterruptedError):
        unpack(tmp_path / "a.tar", tmp_path / "out", SMALL, stopped=lambda: True)
    assert not (tmp_path / "out").exists()


NAMES = st.one_of(
    st.sampled_from(["a", "b/c", "a/b", "../x", "/abs", "a/../b", ".", "l", "l/x", "./a//b", ""]),
    st.text(alphabet="ab/.\\ \x00é", max_size=12),
)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@settings(max_examples=60, deadline=None)
@given(members=st.lists(st.tuples(NAMES, KINDS, NAMES), max_size=6), cut=st.integers(0, 4000))
def test_nothing_ever_lands_outside(members: list[tuple[str, bytes, str]], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_that_nothing_lands_outside(Path(folder), members, cut)


def check_that_nothing_lands_outside(
    base: Path, members: list[tuple[str, bytes, str]], cut: int
) -> None:
    inner = base / "inner"
    inner.mkdir()
    data = tar_bytes(
        *(
            file(name) if kind == tarfile.REGTYPE else special(name, kind, linkname=to)
            for name, kind, to in members
        )
    )
    (inner / "a.tar").write_bytes(data[: len(data) - cut])
    with contextlib.suppress(KingpostError):
        unpack(inner / "a.tar", inner / "out", SMALL)
    root = os.path.realpath(inner / "out")
    for path in (inner / "out").rglob("*"):
        assert os.path.realpath(path).startswith(root)
    assert os.listdir(base) == ["inner"]
    assert set(os.listdir(inner)) <= {"a.tar", "out"}


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=2000))
def test_any_bytes_end_in_a_clear_error_or_files(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "a.tar").write_bytes(data)
        refused = None
        try:
            unpack(base / "a.tar", base / "out", SMALL)
        except KingpostError as error:
            refused = error.http_status
        assert refused in (None, 400, 413)
        assert (base / "out").exists() == (refused is None)
