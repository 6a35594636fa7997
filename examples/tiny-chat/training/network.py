"""A plain llama network in PyTorch, with the parameter names of Hugging Face checkpoints."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.tokenizer import VOCAB_SIZE

# Up to this length attention written out is faster to train on a CPU than the fused kernel.
MAX_PLAIN_ATTENTION = 160


@dataclass(frozen=True)
class Shape:
    """The sizes of a network."""

    vocab: int = VOCAB_SIZE
    width: int = 128
    layers: int = 5
    heads: int = 4
    feed_forward: int = 352
    context: int = 512
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def _rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    half = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = torch.outer(
        torch.arange(shape.context, dtype=torch.float32), shape.rope_base ** (-half)
    )
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos(), doubled.sin()


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = _linear(shape.width, shape.width)
        self.k_proj = _linear(shape.width, shape.width)
        self.v_proj = _linear(shape.width, shape.width)
        self.o_proj = _linear(shape.width, shape.width)

    def forward(self, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Mix the positions of each row."""
        rows, length, width = states.shape

        def split(projected: Tensor) -> Tensor:
            return projected.view(rows, length, self.heads, -1).transpose(1, 2)

        query = _rotate(split(self.q_proj(states)), cos, sin)
        key = _rotate(split(self.k_proj(states)), cos, sin)
        value = split(self.v_proj(states))
        if length > MAX_PLAIN_ATTENTION:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
            hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
            mixed = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1) @ value
        projected: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, width))
        return projected


class FeedForward(nn.Module):
    """The SwiGLU half of a block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = _linear(shape.width, shape.feed_forward)
        self.up_proj = _linear(shape.width, shape.feed_forward)
        self.down_proj = _linear(shape.feed_forward, shape.width)

    def forward(self, states: Tensor) -> Tensor:
        """Transform each position by itself."""
        gated = functional.silu(self.gate_proj(states)) * self.up_proj(states)
        projected: Tensor = self.down_proj(gated)
        return projected


class Block(nn.Module):
    """One layer: attention and feed-forward, each behind a norm and added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Run the layer."""
        states = states + self.self_attn(self.input_layernorm(states), cos, sin)
        out: Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return out


class Backbone(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)


class TinyLlama(nn.Module):
    """The whole network; the output layer shares its weights with the embedding."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Backbone(shape)
        cos, sin = _rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = (2 * shape.layers) ** -0.5 if name.endswith(("o_proj.weight",)) else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    def states(self, tokens: Tensor) -> Tensor:
        """The last hidden states of each position."""
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        states = self.model.embed_tokens(tokens)
        for block in self.model.layers:
            states = block(states, cos, sin)
        normed: Tensor = self.model.norm(states)
        return normed

    def logits(self, states: Tensor) -> Tensor:
        """Scores of every piece of the vocabulary for the given hidden states."""
        return functional.linear(states, self.model.embed_tokens.weight)

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(weight.numel() for weight in self.parameters())
