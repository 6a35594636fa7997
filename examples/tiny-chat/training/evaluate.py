"""Measures answers on held-out questions; how the answers are made is the caller's business."""

from collections.abc import Callable, Sequence

import torch

from training.data import Exchange, Message
from training.network import TinyLlama
from training.tokenizer import EOS_ID, decode, encode_prompt

Answerer = Callable[[Sequence[str]], list[str]]


def greedy_ids(model: TinyLlama, prompt_rows: list[list[int]], max_new: int) -> list[list[int]]:
    """Greedy continuations of prompts of one and the same length, cut at the end token."""
    tokens = torch.tensor(prompt_rows)
    start = tokens.shape[1]
    with torch.inference_mode():
        for _ in range(max_new):
            scores = model.logits(model.states(tokens)[:, -1])
            tokens = torch.cat((tokens, scores.argmax(dim=-1, keepdim=True)), dim=1)
            if bool((tokens[:, start:] == EOS_ID).any(dim=1).all()):
                break
    rows = [[int(token) for token in row] for row in tokens[:, start:]]
    return [row[: row.index(EOS_ID)] if EOS_ID in row else row for row in rows]


def torch_answers(model: TinyLlama, questions: Sequence[str], max_new: int = 96) -> list[str]:
    """Greedy answers to single questions, in batches of prompts of equal length."""
    prompts = [encode_prompt([Message("user", question)]) for question in questions]
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    answers = [""] * len(prompts)
    for indexes in by_length.values():
        for first in range(0, len(indexes), 64):
            chunk = indexes[first : first + 64]
            rows = greedy_ids(model, [prompts[index] for index in chunk], max_new)
            for index, row in zip(chunk, rows, strict=True):
                answers[index] = decode(row)
    return answers


def accuracy(answer: Answerer, exchanges: Sequence[Exchange]) -> float:
    """Share of questions answered exactly as wanted."""
    given = answer([exchange.question for exchange in exchanges])
    right = sum(
        text.strip() == exchange.answer for text, exchange in zip(given, exchanges, strict=True)
    )
    return right / len(exchanges)
