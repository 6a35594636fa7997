"""Checks the exports with the programs that will serve them: llama.cpp and transformers."""

import json
import random
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import xllamacpp  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.data import Message
from training.tokenizer import PIECES, encode, encode_prompt

MAX_NEW = 96
_ODD_CHARACTERS = "\n\t  \u2581\u00e9\u00df\u20ac\u65e5\U0001f600<>|/_0xA"


class LlamaCpp:
    """The GGUF export inside llama.cpp."""

    def __init__(self, path: Path, context: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context
        params.cpuparams.n_threads = 1
        params.cpuparams_batch.n_threads = 1
        params.cache_ram_mib = 0
        params.verbosity = 0
        params.ui = False
        self._server = xllamacpp.Server(params)

    def chat(self, messages: Sequence[Message]) -> str:
        """The greedy answer to a chat."""
        body = {
            "messages": [message._asdict() for message in messages],
            "temperature": 0,
            "max_tokens": MAX_NEW,
        }
        answer: dict[str, Any] = self._server.handle_chat_completions(body)
        return str(answer["choices"][0]["message"]["content"])

    def answers(self, questions: Sequence[str]) -> list[str]:
        """Greedy answers to single questions."""
        return [self.chat([Message("user", question)]) for question in questions]

    def tokens(self, text: str) -> list[int]:
        """Token ids of plain text."""
        body = {"content": text, "add_special": False, "parse_special": False}
        return self._post("/tokenize", body)["tokens"]  # type: ignore[no-any-return]

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat, through the chat template inside the file."""
        body: dict[str, Any] = {"messages": [message._asdict() for message in messages]}
        prompt = self._post("/apply-template", body)["prompt"]
        body = {"content": prompt, "add_special": True, "parse_special": True}
        return self._post("/tokenize", body)["tokens"]  # type: ignore[no-any-return]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._server.listening_address + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)  # type: ignore[no-any-return]


class Transformers:
    """The Hugging Face export inside transformers, in full precision."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )

    def chat(self, messages: Sequence[Message]) -> str:
        """The greedy answer to a chat."""
        prompt = torch.tensor([self.prompt_tokens(messages)])
        with torch.inference_mode():
            row = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=MAX_NEW,
                do_sample=False,
                pad_token_id=0,
            )[0]
        return str(self._tokenizer.decode(row[prompt.shape[1] :], skip_special_tokens=True))

    def tokens(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return list(
            self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat, through the chat template inside the folder."""
        text = self._tokenizer.apply_chat_template(
            [message._asdict() for message in messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def odd_texts(count: int, seed: int) -> list[str]:
    """Strings of ordinary and awkward characters, to compare tokenizers on."""
    rng = random.Random(seed)
    plain = [piece for piece in PIECES if len(piece) == 1]
    return [
        "".join(rng.choice(plain + list(_ODD_CHARACTERS) * 3) for _ in range(rng.randint(1, 40)))
        for _ in range(count)
    ]


def share_equal(
    chats: Sequence[Sequence[Message]],
    first: Callable[[Sequence[Message]], str],
    second: Callable[[Sequence[Message]], str],
) -> float:
    """Share of chats that two engines answer with the same text."""
    return sum(first(chat) == second(chat) for chat in chats) / len(chats)


def check_tokenizers(
    llama: LlamaCpp, hf: Transformers, texts: Sequence[str], chats: Sequence[Sequence[Message]]
) -> None:
    """Raise unless trainer, llama.cpp and transformers agree on every token."""
    for text in texts:
        wanted = encode(text)
        for engine in (llama, hf):
            if (given := engine.tokens(text)) != wanted:
                name = type(engine).__name__
                raise ValueError(f"{name} reads {text!r} as {given}, the trainer as {wanted}")
    for chat in chats:
        wanted = encode_prompt(chat)
        for engine in (llama, hf):
            if (given := engine.prompt_tokens(chat)) != wanted:
                name = type(engine).__name__
                raise ValueError(f"{name} reads {chat!r} as {given}, the trainer as {wanted}")
