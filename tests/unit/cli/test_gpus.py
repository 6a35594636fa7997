"""`kingpost show-gpus` as it is typed."""

from __future__ import annotations

import json

import pytest


def test_baseten_has_exactly_these_rows(kingpost) -> None:
    ran = kingpost("show-gpus", "--provider", "baseten")
    assert ran.exit_code == 0
    head, *rows = [line.rsplit(maxsplit=3) for line in ran.out.splitlines()]
    assert head[-1] == "BASETEN"
    assert [(row[0].strip(), row[-1]) for row in rows] == [
        ("T4", "0.63"),
        ("A10G", "1.21"),
        ("L4", "0.85"),
        ("H100 MIG", "3.75"),
        ("A100", "4.00"),
        ("H100", "6.50"),
        ("B200", "9.98"),
    ]
    assert "2026" in ran.err


def test_a_row_marks_its_cheapest(kingpost) -> None:
    ran = kingpost("show-gpus")
    l4 = next(line for line in ran.out.splitlines() if line.startswith("L4 "))
    assert l4.split() == ["L4", "24", "GB", "0.80*", "2.74", "0.84", "0.85", "-", "0.80*"]
    assert "old" in ran.err


def test_one_in_detail(kingpost) -> None:
    ran = kingpost("show-gpus", "--gpu", "l4")
    assert ran.exit_code == 0
    row = next(line for line in ran.out.splitlines() if line.startswith("baseten"))
    assert row.split() == ["baseten", "0.85", "L4", "minute", "2026"]
    assert "24 GB" in ran.out


def test_json_has_prices_as_text_with_their_date(kingpost) -> None:
    ran = kingpost("show-gpus", "--gpu", "H100 MIG", "--json")
    (entry,) = json.loads(ran.out)
    (offer,) = entry["offers"]
    assert offer["usd_per_gpu_hour"] == "3.75"
    assert offer["provider_gpu_id"] == "H100_40GB"
    assert offer["as_of"] == "2026"
    assert ran.err == ""


def test_limits(kingpost) -> None:
    ran = kingpost("show-gpus", "--max-price", "1", "--min-vram", "48", "--json")
    assert {entry["gpu"] for entry in json.loads(ran.out)} == {"A6000", "A40", "RTX_PRO_6000"}
    none = kingpost("show-gpus", "--max-price", "0.01")
    assert "No GPU meets" in none.out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--gpu", "H1000"], 1, "H100"),
        (["--provider", "nobody"], 1, "baseten"),
        (["--max-price", "cheap"], 2, "no price"),
    ],
)
def test_misses_say_what_there_is(
    kingpost, arguments: list[str], exit_code: int, words: str
) -> None:
    ran = kingpost("show-gpus", *arguments)
    assert ran.exit_code == exit_code
    assert words in ran.err
