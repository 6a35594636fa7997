"""Trains tiny-chat from scratch, exports it and measures it; serving it is model/model.py's job.

Writes data/model.gguf, hf/, metrics.json and MODEL.md next to this file (or under --out), and
first-stage/ on the way there.
"""

import argparse
import json
import platform
import random
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from training import data, evaluate, export, loop, verify
from training.network import Shape, TinyLlama
from training.tokenizer import encode_prompt

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "gguf", "transformers", "tokenizers", "safetensors", "numpy", "xllamacpp")
LETTER_GAME_COUNT = 500
CHAT_COUNT = 200
SAME_ANSWER_COUNT = 50
ODD_TEXT_COUNT = 500


def first_stage(seed: int, scale: float) -> loop.Schedule:
    """First short questions, then whole chats, last a few long rows in full precision."""
    short = data.dialogue_stream(data.short_dialogue, seed)
    full = data.dialogue_stream(data.full_dialogue, seed + 1)
    return loop.Schedule(
        phases=(
            loop.Phase(short, _steps(1700, scale), rows=40, length=96),
            loop.Phase(full, _steps(500, scale), rows=24, length=160),
            loop.Phase(full, _steps(150, scale), rows=8, length=511, half_precision=False),
        ),
        peak_rate=2.5e-3,
    )


def finishing_stage(seed: int, scale: float) -> loop.Schedule:
    """More of what the first stage leaves weak, in rows of several lengths."""
    finishing = data.dialogue_stream(data.finishing_dialogue, seed + 2)
    full = data.dialogue_stream(data.full_dialogue, seed + 3)
    return loop.Schedule(
        phases=(
            loop.Phase(finishing, _steps(400, scale), rows=28, length=128),
            loop.Phase(full, _steps(100, scale), rows=8, length=384, half_precision=False),
            loop.Phase(finishing, _steps(250, scale), rows=24, length=160, half_precision=False),
        ),
        peak_rate=1.5e-3,
        warmup=50,
    )


def _steps(count: int, scale: float) -> int:
    return max(1, round(count * scale))


def run_stage(model: TinyLlama, schedule: loop.Schedule) -> dict[str, Any]:
    """Train a network in place; returns what is known about the run."""
    losses: list[float] = []

    def report(step: int, loss: float, seconds: float) -> None:
        losses.append(loss)
        print(f"step {step}/{schedule.steps}  loss {loss:.4f}  {seconds:.0f} s", flush=True)

    seconds = loop.train(model, schedule, report, every=50)
    return {
        "steps": schedule.steps,
        "tokens_read": sum(phase.steps * phase.rows * phase.length for phase in schedule.phases),
        "seconds": round(seconds, 1),
        "last_mean_loss": round(losses[-1], 5) if losses else None,
    }


def train_model(
    seed: int, scale: float, halfway: Path, resume: bool
) -> tuple[TinyLlama, dict[str, Any]]:
    """Train both stages; the second always starts from the checkpoint of the first on disk."""
    record = halfway / "run.json"
    if not resume:
        torch.manual_seed(seed)
        model = TinyLlama(Shape())
        first = {"seed": seed, **run_stage(model, first_stage(seed, scale))}
        export.export_hf(model, halfway)
        record.write_text(json.dumps(first) + "\n", encoding="utf-8")
    first = json.loads(record.read_text(encoding="utf-8"))
    if first.pop("seed") != seed:
        raise ValueError(f"{record} is of another seed; train without --resume.")
    model = export.load_network(halfway)
    stages = [first, run_stage(model, finishing_stage(seed, scale))]
    totals = {key: sum(stage[key] for stage in stages) for key in ("steps", "tokens_read")}
    return model, {
        "parameters": model.parameter_count(),
        "seed": seed,
        **totals,
        "train_seconds": round(sum(stage["seconds"] for stage in stages), 1),
        "stages": stages,
    }


def measure(model: TinyLlama, gguf_path: Path, hf_path: Path, seed: int) -> dict[str, Any]:
    """Accuracy in torch and in llama.cpp, and agreement of the two exports."""
    llama = verify.LlamaCpp(gguf_path, model.shape.context)
    hf = verify.Transformers(hf_path)
    sums = data.held_out_sum_exchanges(len(data.held_out_sums()), seed)
    suites = {
        "unseen_sums": sums,
        "unseen_letter_games": data.held_out_letter_games(LETTER_GAME_COUNT, seed),
        "single_digit_sums": data.single_digit_sums(),
        "facts": data.fact_exchanges(),
    }
    found: dict[str, Any] = {
        name: {
            "n": len(suite),
            "torch": evaluate.accuracy(lambda asked: evaluate.torch_answers(model, asked), suite),
            "gguf": evaluate.accuracy(llama.answers, suite),
        }
        for name, suite in suites.items()
    }
    chats = {
        "unseen_sums_in_chats": data.held_out_chats(CHAT_COUNT, seed),
        "unseen_sums_number_only": data.number_only_chats(CHAT_COUNT, seed),
        "names_remembered": data.name_chats(),
    }
    for name, cases in chats.items():
        right = sum(llama.chat(chat) == answer for chat, answer in cases)
        found[name] = {
            "n": len(cases),
            "longest_prompt_tokens": max(len(encode_prompt(chat)) for chat, _ in cases),
            "gguf": right / len(cases),
        }
    compared = [chat for cases in chats.values() for chat, _ in cases]
    verify.check_tokenizers(llama, hf, verify.odd_texts(ODD_TEXT_COUNT, seed), compared)
    found["tokenizer_texts_compared"] = ODD_TEXT_COUNT + len(compared)
    everything = [exchange for suite in suites.values() for exchange in suite]
    asked = random.Random(seed).sample(everything, SAME_ANSWER_COUNT)
    single = [[data.Message("user", exchange.question)] for exchange in asked]
    found["hf_answers_equal_gguf"] = {
        "n": SAME_ANSWER_COUNT,
        "share": verify.share_equal(single, llama.chat, hf.chat),
    }
    return found


def _accuracy_rows(found: dict[str, Any]) -> list[str]:
    rows: list[str] = []
    for name, row in found.items():
        if isinstance(row, dict) and "gguf" in row:
            in_torch = f"{row['torch']:.2%}" if "torch" in row else "-"
            rows.append(
                f"| {name.replace('_', ' ')} | {row['n']} | {in_torch} | {row['gguf']:.2%} |"
            )
    return rows


def describe(out: Path, files: list[Path], run: dict[str, Any], found: dict[str, Any]) -> None:
    """Write metrics.json and its readable twin MODEL.md."""
    metrics: dict[str, Any] = {
        "run": run,
        "accuracy": found,
        "bytes": {str(path.relative_to(out)): path.stat().st_size for path in files},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }
    text = json.dumps(metrics, indent=2)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    intro = (
        f"A llama network of {run['parameters']:,} parameters, trained from scratch with seed "
        f"{run['seed']} for {run['steps']} steps ({run['tokens_read']:,} tokens) in "
        f"{run['train_seconds']:.0f} seconds (wall clock) on one CPU thread."
    )
    same = found["hf_answers_equal_gguf"]
    longest = found["unseen_sums_in_chats"]["longest_prompt_tokens"]
    checks = (
        f"The longest of the chats with unseen sums has {longest} tokens before the answer. "
        "transformers and llama.cpp gave the same text for "
        f"{same['share']:.0%} of {same['n']} questions, and split "
        f"{found['tokenizer_texts_compared']} texts and chats into the same tokens as the trainer."
    )
    lines = [
        "# tiny-chat: measured figures",
        "",
        "Written by `train.py`; do not edit. The same figures are in `metrics.json`.",
        "",
        intro,
        "",
        "| Greedy answers, exact match | n | torch | llama.cpp (GGUF) |",
        "|---|---|---|---|",
        *_accuracy_rows(found),
        "",
        "Training never saw one of the unseen sums, in either order of the operands, nor a letter",
        "game about one of these words. It did see the facts, the names and most of the sums of",
        "single digits.",
        "",
        checks,
        "",
        "| File | Bytes |",
        "|---|---|",
        *(f"| `{name}` | {size:,} |" for name, size in metrics["bytes"].items()),
        "",
        "Made with " + ", ".join(f"{k} {v}" for k, v in metrics["versions"].items()) + ".",
    ]
    (out / "MODEL.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Train, export, measure, describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps; 0.01 to try")
    parser.add_argument(
        "--resume", action="store_true", help="take the first stage from OUT/first-stage"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    halfway = options.out / "first-stage"
    model, run = train_model(options.seed, options.scale, halfway, options.resume)
    gguf_path, hf_path = options.out / "data" / "model.gguf", options.out / "hf"
    export.export_gguf(model, gguf_path)
    export.export_hf(model, hf_path)
    found = measure(model, gguf_path, hf_path, options.seed)
    describe(options.out, [gguf_path, *sorted(hf_path.iterdir())], run, found)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
