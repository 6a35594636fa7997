"""What a push packs: the files truss would take, the same bytes every time."""

import io
import os
import tarfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.client import archive, ignore
from kingpost.errors import InvalidInputError


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def packed(folder: Path, config: Path | None = None) -> tuple[dict[str, bytes], archive.Packed]:
    out = io.BytesIO()
    result = archive.pack(archive.read_truss(folder, config), out)
    assert result.size_bytes == len(out.getvalue())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        members = {m.name: m for m in tar}
        files = {n: (tar.extractfile(m) or io.BytesIO()).read() for n, m in members.items()}
    assert all(m.isreg() for m in members.values())
    return files, result


def test_files_are_packed_with_the_default_patterns(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "config.yaml": "model_name: m\n",
            "model/model.py": "x",
            "model/__pycache__/model.cpython-311.pyc": "no",
            ".git/HEAD": "no",
            "data/weights.bin": "w",
            "notes.log": "no",
        },
    )
    files, result = packed(tmp_path)
    assert sorted(files) == ["config.yaml", "data/weights.bin", "model/model.py"]
    assert result.files == 3


def test_its_own_patterns_replace_the_default_ones(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".truss_ignore": "# mine\ndata/\n!data/keep.txt\n*.csv\n!model/a.csv\n",
            "config.yaml": "",
            "data/keep.txt": "its folder is left out",
            "model/a.csv": "kept",
            "b.csv": "no",
            "c.log": "kept",
        },
    )
    files, _ = packed(tmp_path)
    assert sorted(files) == [".truss_ignore", "c.log", "config.yaml", "model/a.csv"]


def test_time_and_place_change_no_bytes(tmp_path: Path) -> None:
    files = {"config.yaml": "model_name: m\n", "b.py": "b", "a.py": "a", "sub/c.py": "c"}
    one = make(tmp_path / "one", files)
    other = make(tmp_path / "other", dict(reversed(files.items())))
    os.utime(other / "a.py", (1, 1))
    assert packed(one)[1].sha256 == packed(other)[1].sha256


def test_external_packages_are_gathered(tmp_path: Path) -> None:
    make(tmp_path / "shared", {"lib1/__init__.py": "1", "lib1/x.pyc": "no", "single.py": "s"})
    truss = make(
        tmp_path / "truss",
        {"config.yaml": "model_name: m\nexternal_package_dirs: [../shared]\n", "packages/o.py": ""},
    )
    files, _ = packed(truss)
    assert sorted(files) == [
        *("config.yaml", "packages/lib1/__init__.py", "packages/o.py", "packages/single.py")
    ]
    assert b"external_package_dirs: []" in files["config.yaml"]
    make(tmp_path / "shared", {"single.py": "changed"})
    assert packed(truss)[0]["packages/single.py"] == b"changed"


def test_another_config_takes_the_configs_place(tmp_path: Path) -> None:
    make(tmp_path / "t", {"config.yaml": "model_name: a\n"})
    (tmp_path / "other.yaml").write_text("model_name: b\n")
    files, _ = packed(tmp_path / "t", tmp_path / "other.yaml")
    assert files == {"config.yaml": b"model_name: b\n"}


def test_links(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "blob").write_text("weights")
    truss = make(tmp_path / "t", {"config.yaml": ""})
    (truss / "model.bin").symlink_to(tmp_path / "cache" / "blob")
    (truss / "folder").symlink_to(tmp_path / "cache")
    (truss / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(truss / "pipe")
    files, result = packed(truss)
    assert files["model.bin"] == b"weights"
    assert result.skipped == ("folder", "gone", "pipe")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("b: 1\na: [x", "line 2 is no valid YAML"),
        ("- a\n- b\n", "name: value"),
        ("external_package_dirs: x\n", "must be a list"),
        ("external_package_dirs: [nowhere]\n", "nowhere does not exist"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, config: str, said: str) -> None:
    make(tmp_path, {"config.yaml": config})
    with pytest.raises(InvalidInputError, match=said):
        archive.read_truss(tmp_path)


segments = st.text(st.sampled_from("ab.*[]!#/ \\-?é"), max_size=8)


@given(st.lists(segments, max_size=4), st.from_regex(r"[ab](/[ab.]{1,3}){0,3}", fullmatch=True))
def test_the_filter_always_decides(patterns: list[str], path: str) -> None:
    text = "\n".join(patterns)
    try:
        chosen = ignore.Filter(ignore.parse_patterns(text))
    except InvalidInputError as error:
        assert error.message  # noqa: PT017
        return
    assert chosen.keeps_file(PurePosixPath(path)) in {True, False}


@given(st.text())
def test_comments_and_empty_lines_are_no_patterns(text: str) -> None:
    assert all(p.strip() == p and p and p[0] != "#" for p in ignore.parse_patterns(text))
