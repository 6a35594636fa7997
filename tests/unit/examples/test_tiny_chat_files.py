"""Checks the files of examples/tiny-chat without torch; it trains and serves nothing."""

import importlib.util
import json
import random
import re
import struct
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "tiny-chat"
LIMIT = 4 * 1024 * 1024
GGUF_STRING = 8
STEPS = re.compile(r"(\d+) \+ (\d+) = (\d+)")


@pytest.fixture(scope="module")
def data() -> Iterator[ModuleType]:
    """The data module, loaded from its file under a name of its own."""
    name = "tiny_chat_data"
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / "training" / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    had_torch = "torch" in sys.modules
    spec.loader.exec_module(module)
    assert had_torch or "torch" not in sys.modules
    yield module
    del sys.modules[name]


def metrics() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLE / "metrics.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "MODEL.md",
        "metrics.json",
        "config.yaml",
        "train.py",
        "train-requirements.txt",
        "model/model.py",
        "data/model.gguf",
        "hf/config.json",
        "hf/generation_config.json",
        "hf/model.safetensors",
        "hf/tokenizer.json",
        "hf/tokenizer_config.json",
    ],
)
def test_file_is_there_and_small(name: str) -> None:
    size = (EXAMPLE / name).stat().st_size
    assert 0 < size <= LIMIT


def test_recorded_sizes_are_those_of_the_files() -> None:
    for name, size in metrics()["bytes"].items():
        assert (EXAMPLE / name).stat().st_size == size, name


@pytest.mark.parametrize("engine", ["torch", "gguf"])
def test_unseen_sums_are_right(engine: str) -> None:
    unseen = metrics()["accuracy"]["unseen_sums"]
    assert unseen["n"] >= 500
    assert unseen[engine] >= 0.95


def test_exports_agree() -> None:
    same = metrics()["accuracy"]["hf_answers_equal_gguf"]
    assert same["n"] >= 50
    assert same["share"] == 1.0


def test_truss_config() -> None:
    config = yaml.safe_load((EXAMPLE / "config.yaml").read_text(encoding="utf-8"))
    assert config["model_name"] == "tiny-chat"
    assert "openai-compatible" in config["model_metadata"]["tags"]
    assert config["model_metadata"]["example_model_input"]["messages"]
    assert all("==" in requirement for requirement in config["requirements"])


def test_gguf_header() -> None:
    raw = (EXAMPLE / "data" / "model.gguf").read_bytes()
    magic, version, tensors, pairs = struct.unpack_from("<4sIQQ", raw)
    assert magic == b"GGUF"
    assert version == 3
    assert tensors > 0
    assert pairs > 0

    def text(offset: int) -> tuple[str, int]:
        (length,) = struct.unpack_from("<Q", raw, offset)
        start = offset + 8
        return raw[start : start + length].decode(), start + length

    key, offset = text(struct.calcsize("<4sIQQ"))
    (kind,) = struct.unpack_from("<I", raw, offset)
    assert (key, kind) == ("general.architecture", GGUF_STRING)
    assert text(offset + 4)[0] == "llama"
    assert b"tokenizer.chat_template" in raw


def test_checkpoint_is_a_plain_llama() -> None:
    config = json.loads((EXAMPLE / "hf" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] >= 512
    tokenizer = json.loads((EXAMPLE / "hf" / "tokenizer.json").read_text(encoding="utf-8"))
    assert len(tokenizer["model"]["vocab"]) <= config["vocab_size"]


@pytest.mark.parametrize("maker", ["short_dialogue", "full_dialogue", "finishing_dialogue"])
def test_training_never_shows_a_held_out_sum(data: ModuleType, maker: str) -> None:
    sums = 0
    for dialogue in islice(data.dialogue_stream(getattr(data, maker), seed=1), 20_000):
        operands: list[int] = []
        for message in dialogue:
            asked = [int(number) for number in re.findall(r"\d+", message.content)]
            if message.role == "user":
                operands = asked
                continue
            if match := STEPS.fullmatch(message.content):
                a, b, total = map(int, match.groups())
                assert a + b == total
                assert not data.is_held_out_pair(a, b)
                sums += 1
            elif message.role == "assistant" and len(operands) == 2:
                assert asked == [sum(operands)]
                assert not data.is_held_out_pair(*operands)
    assert sums > 5_000


def test_number_only_follow_ups_avoid_held_out_sums(data: ModuleType) -> None:
    previous = -1
    for dialogue in islice(data.dialogue_stream(data.full_dialogue, seed=2), 50_000):
        if dialogue[0].content not in data.NUMBER_ONLY_SYSTEMS:
            continue
        for question, answer in zip(dialogue[1::2], dialogue[2::2], strict=True):
            operands = [int(number) for number in re.findall(r"\d+", question.content)]
            if len(operands) == 1:
                operands = [previous, *operands]
            previous = int(answer.content)
            assert sum(operands) == previous
            assert not data.is_held_out_pair(*operands)


def test_training_never_plays_with_a_held_out_word(data: ModuleType) -> None:
    rng = random.Random(3)
    held_out = {exchange.answer for exchange in data.held_out_letter_games(300, seed=7)}
    for _ in range(20_000):
        assert not data.is_held_out_word(data.training_word(rng))
    for dialogue in islice(data.dialogue_stream(data.full_dialogue, seed=4), 20_000):
        assert not held_out.intersection(message.content for message in dialogue)


def test_test_questions_are_held_out(data: ModuleType) -> None:
    pairs = data.held_out_sums()
    everything = (data.MAX_OPERAND + 1) ** 2
    assert 0.05 < len(pairs) / everything < 0.15
    assert {(b, a) for a, b in pairs} == set(pairs)
    for exchange in data.held_out_sum_exchanges(200, seed=5):
        match = STEPS.fullmatch(exchange.answer)
        assert match is not None
        assert data.is_held_out_pair(int(match[1]), int(match[2]))


def test_streams_repeat(data: ModuleType) -> None:
    first, second = (
        list(islice(data.dialogue_stream(data.full_dialogue, seed=6), 200)) for _ in range(2)
    )
    assert first == second
