"""The training loop: packs dialogues into rows and fits a network to the assistant's words."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.data import Dialogue
from training.network import TinyLlama
from training.tokenizer import encode_dialogue


@dataclass(frozen=True)
class Phase:
    """A stretch of training on one source of dialogues with one shape of batch."""

    dialogues: Iterator[Dialogue]
    steps: int
    rows: int
    length: int
    half_precision: bool = True


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    phases: tuple[Phase, ...]
    peak_rate: float
    warmup: int = 100
    final_share: float = 0.02
    weight_decay: float = 0.1
    clip: float = 1.0

    @property
    def steps(self) -> int:
        """All steps together."""
        return sum(phase.steps for phase in self.phases)

    def rate(self, step: int) -> float:
        """Learning rate of a step: a short rise, then half a cosine."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        wave = 0.5 * (1 + math.cos(math.pi * done))
        return self.peak_rate * (self.final_share + (1 - self.final_share) * wave)


def packed_row(dialogues: Iterator[Dialogue], length: int) -> tuple[list[int], list[bool]]:
    """One row of exactly length + 1 tokens; it starts with a dialogue and cuts the last one."""
    ids: list[int] = []
    learn: list[bool] = []
    while len(ids) <= length:
        more_ids, more_learn = encode_dialogue(next(dialogues))
        ids += more_ids
        learn += more_learn
    return ids[: length + 1], learn[: length + 1]


def batch(phase: Phase) -> tuple[Tensor, Tensor]:
    """Rows of tokens with the mask of those to be predicted."""
    rows = [packed_row(phase.dialogues, phase.length) for _ in range(phase.rows)]
    return torch.tensor([ids for ids, _ in rows]), torch.tensor([learn for _, learn in rows])


def masked_loss(model: TinyLlama, tokens: Tensor, learn: Tensor) -> Tensor:
    """Mean cross-entropy over the assistant's tokens."""
    wanted = learn[:, 1:]
    states = model.states(tokens[:, :-1])[wanted]
    return functional.cross_entropy(model.logits(states), tokens[:, 1:][wanted])


def _optimizer(model: TinyLlama, schedule: Schedule) -> torch.optim.Optimizer:
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in trainable if w.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [w for w in trainable if w.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.peak_rate, betas=(0.9, 0.98), fused=True)


def train(
    model: TinyLlama,
    schedule: Schedule,
    report: Callable[[int, float, float], None],
    every: int = 100,
) -> float:
    """Fit the model in place; returns the seconds it took."""
    optimizer = _optimizer(model, schedule)
    started = time.monotonic()
    model.train()
    step, running = 0, 0.0
    for phase in schedule.phases:
        for _ in range(phase.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            tokens, learn = batch(phase)
            with torch.autocast("cpu", torch.bfloat16, enabled=phase.half_precision):
                loss = masked_loss(model, tokens, learn)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            optimizer.step()
            running += loss.item()
            step += 1
            if step % every == 0:
                report(step, running / every, time.monotonic() - started)
                running = 0.0
    model.eval()
    return time.monotonic() - started
