from __future__ import annotations

from pathlib import Path

import pytest

from kingpost.build.images import ImageTable, names
from kingpost.errors import InvalidInputError
from kingpost.settings import DataFolder


def test_names_from_narrow_to_wide() -> None:
    assert names("reg:5000/a/b:1@sha256:x") == [
        "reg:5000/a/b:1@sha256:x",
        "reg:5000/a/b:1",
        "reg:5000/a/b",
    ]
    assert names("python") == ["python"]


def test_the_narrowest_name_wins(tmp_path: Path) -> None:
    for name in ("any", "one"):
        (tmp_path / name / "bin").mkdir(parents=True)
    table = ImageTable(DataFolder(tmp_path / "data"))
    table.map("vllm/vllm-openai", tmp_path / "any")
    table.map("vllm/vllm-openai:v1", tmp_path / "one")
    assert table.find("vllm/vllm-openai:v1@sha256:abc") == tmp_path / "one"
    assert table.find("vllm/vllm-openai:v2") == tmp_path / "any"
    assert table.find("other") is None
    table.unmap("vllm/vllm-openai:v1")
    assert table.find("vllm/vllm-openai:v1") == tmp_path / "any"
    with pytest.raises(InvalidInputError):
        table.unmap("vllm/vllm-openai:v1")


@pytest.mark.parametrize(("image", "prefix"), [("a", "relative"), ("a", "/nowhere"), ("", "/usr")])
def test_what_can_not_be_mapped(tmp_path: Path, image: str, prefix: str) -> None:
    table = ImageTable(DataFolder(tmp_path))
    with pytest.raises(InvalidInputError):
        table.map(image, Path(prefix))
    assert table.all() == {}


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"images\.json"):
        ImageTable(DataFolder(tmp_path)).find("a")
