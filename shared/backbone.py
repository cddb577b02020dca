"""The frozen part: a sequence encoder over item vectors, added to a prior that is strong untrained.

    score(history, item) = a·cos(pool(history), v_item) + <correction(history), v_item>
                         = <query(history), v_item>

`pool` weighs the last items by recency and is never trained. `correction` is zero in the untrained
state, so training only adds to the prior: replacing it costs two thirds of its quality in the first
epochs. Every trainable number is in an adapter slot; everything else is frozen and has a digest.

Axes: B Histories, T positions, W width of the text vectors, D width of the encoder, R rank.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from shared.adapter import Adapter
from shared.device import autocast
from shared.errors import AdapterError, BackboneError
from shared.files import check_readable, replacing
from shared.strict_parsing import json_value
from shared.tensor_files import check_header, reason

FORMAT = "atoll-backbone-1"
WIDEST = 10_000  # items of `pool` that a spec may name; ours has 5


@dataclass(frozen=True)
class BackboneSpec:
    """The shape of a backbone; every number is part of its digest.

    Attributes:
        encoder: digest of the text encoder whose vectors it reads.
        text_width: W.
        width: D.
        layers: transformer layers.
        heads: attention heads.
        rank: R of the LoRA slots within the encoder.
        out_rank: R of the slot that writes the correction, which has the most to say.
        max_length: events of a History that are read; the last ones.
        prior_scale: a, the inverse temperature of the cosine; about 6 is right for whitened MiniLM.
        decay: weight of an item relative to the one after it in `pool`.
        window: items in `pool`.
    """

    encoder: str
    text_width: int = 384
    width: int = 64
    layers: int = 2
    heads: int = 4
    rank: int = 14  # with the rest of the defaults an update is of 99 kB
    out_rank: int = 32
    max_length: int = 50
    prior_scale: float = 6.0
    decay: float = 0.7
    window: int = 5

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")


class LowRank(nn.Module):
    """A frozen linear map plus B·A·x with A frozen too (FFA-LoRA, arXiv 2403.12313).

    Averaging B over platforms is then exact, noise enters once, and half as much travels.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.down = nn.Linear(inputs, rank, bias=False)
        self.adapter = nn.Linear(rank, outputs, bias=False)
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(inputs))
        nn.init.zeros_(self.adapter.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] → [..., outputs]."""
        return cast(Tensor, self.base(x) + self.adapter(self.down(x)))


class Gate(nn.Module):
    """One number that lets the pretrained correction in; 0 in the untrained state."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., W] → [..., W]."""
        return self.adapter * x


class Layer(nn.Module):
    """Pre-norm attention and feed-forward, causal, distance by ALiBi (arXiv 2108.12409)."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.attend_norm = nn.LayerNorm(spec.width)
        self.query_key_value = LowRank(spec.width, 3 * spec.width, spec.rank)
        self.attend_out = nn.Linear(spec.width, spec.width)
        self.feed_norm = nn.LayerNorm(spec.width)
        self.feed_in = LowRank(spec.width, 4 * spec.width, spec.rank)
        self.feed_out = nn.Linear(4 * spec.width, spec.width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [B, T, D], bias [H, T, T] → [B, T, D]."""
        batch, length, width = x.shape
        parts = self.query_key_value(self.attend_norm(x))
        # [B, T, 3D] → three of [B, H, T, D/H]
        q, k, v = parts.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        x = x + self.attend_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return cast(Tensor, x + self.feed_out(F.gelu(self.feed_in(self.feed_norm(x)))))


class Backbone(nn.Module):
    """Queries from Histories; a fresh one is the untrained prior whatever its weights are."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mixed = True  # bfloat16 for matrix products, where there is a GPU
        self.read = nn.Linear(spec.text_width, spec.width)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.width)
        # What pretraining learnt to add, let in by the gate ...
        self.pretrained = nn.Linear(spec.width, spec.text_width, bias=False)
        self.gate = Gate()
        # ... and what platforms learn to add. A is frozen, as in every slot.
        self.down = nn.Linear(spec.width, spec.out_rank, bias=False)
        self.adapter = nn.Linear(spec.out_rank, spec.text_width, bias=False)
        nn.init.zeros_(self.pretrained.weight)
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(spec.width))
        nn.init.zeros_(self.adapter.weight)
        recency = spec.decay ** torch.arange(spec.window - 1, -1, -1, dtype=torch.float32)
        self.register_buffer("recency", recency, persistent=False)
        self.freeze()

    def freeze(self) -> None:
        """Leave only the adapter slots trainable."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(is_slot(name))

    def forward(self, vectors: Tensor) -> Tensor:
        """Item vectors [B, T, W] in time order, padded at the end → queries [B, T, W].

        The query at position t sees items 0..t. Its product with an item's vector is the score.
        """
        # The prior stays in full precision: it is never trained, and ranks alone at the start.
        with autocast(vectors.device, mixed=self.mixed):
            correction = self.correction(vectors)
        return self.spec.prior_scale * self.prior(vectors) + correction.float()

    def prior(self, vectors: Tensor) -> Tensor:
        """[B, T, W] → [B, T, W]: the last items, weighed by recency, at unit length."""
        window = self.spec.window
        padded = F.pad(vectors, (0, 0, window - 1, 0))  # [B, T+window-1, W]
        spans = padded.unfold(1, window, 1)  # [B, T, W, window]
        return F.normalize(spans @ cast(Tensor, self.recency).to(vectors.dtype), dim=-1)

    def correction(self, vectors: Tensor) -> Tensor:
        """[B, T, W] → [B, T, W]: zero in the untrained state."""
        return self.answer(self.states(vectors))

    def states(self, vectors: Tensor) -> Tensor:
        """[B, T, W] → [B, T, D]: what the encoder has read up to each position."""
        x = self.read(vectors * math.sqrt(self.spec.text_width))  # whose entries are then about 1
        bias = causal_bias(vectors.shape[1], self.spec.heads, vectors.device)
        for layer in self.layers:
            x = layer(x, bias)
        return cast(Tensor, self.norm(x))

    def answer(self, states: Tensor) -> Tensor:
        """[B, T, D] → [B, T, W]: what is added to the prior's queries."""
        return cast(Tensor, self.gate(self.pretrained(states)) + self.adapter(self.down(states)))

    @property
    def digest(self) -> str:
        """SHA-256 over the spec and every frozen number, as hexadecimal."""
        state = hashlib.sha256(json.dumps([FORMAT, asdict(self.spec)], sort_keys=True).encode())
        for name, tensor in sorted(_frozen(self).items()):
            state.update(f"{name}{tuple(tensor.shape)}\n".encode())
            state.update(tensor.numpy().tobytes())
        return state.hexdigest()


def causal_bias(length: int, heads: int, device: torch.device) -> Tensor:
    """[H, T, T] added to attention logits: -slope·distance to the past, -∞ to the future."""
    place = torch.arange(length, device=device)
    distance = (place[:, None] - place[None, :]).float()  # [T, T]
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1, device=device) / heads)
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, float("-inf"))


def new_backbone(spec: BackboneSpec, *, seed: int) -> Backbone:
    """A backbone with random frozen weights drawn from `seed`; no global state is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(spec)


def read_slots(backbone: Backbone, *, digest: str, task: str, version: int = 0) -> Adapter:
    """The adapter slots as they stand. `digest` is the backbone's, computed once by the caller."""
    tensors = {
        name: parameter.detach().cpu().numpy().astype(np.float32).copy()
        for name, parameter in sorted(backbone.named_parameters())
        if is_slot(name)
    }
    return Adapter(tensors, backbone=digest, task=task, version=version)


def fill_slots(backbone: Backbone, adapter: Adapter) -> None:
    """Copy an Adapter into the slots.

    Raises:
        AdapterError: names or shapes differ from the slots.
    """
    slots = {name: value for name, value in backbone.named_parameters() if is_slot(name)}
    expected = {name: tuple(value.shape) for name, value in slots.items()}
    if adapter.shapes != expected:
        odd = sorted(set(expected.items()) ^ set(adapter.shapes.items()))[0]
        raise AdapterError(
            f"tensor {odd[0]!r} of shape {odd[1]} does not fit this backbone",
            todo="use the backbone it was trained with",
        )
    with torch.no_grad():
        for name, slot in slots.items():
            slot.copy_(torch.from_numpy(np.array(adapter.tensors[name])))


def save_backbone(backbone: Backbone, path: Path) -> str:
    """Write the frozen weights with spec and digest in the header; returns the digest."""
    digest = backbone.digest
    header = {"format": FORMAT, "spec": json.dumps(asdict(backbone.spec)), "digest": digest}
    with replacing(path, public=True) as part:
        save_file(_frozen(backbone), part, metadata=header)
    return digest


def load_backbone(path: Path) -> Backbone:
    """Read a backbone and check its digest.

    Raises:
        BackboneError: missing, damaged, or not a backbone.
    """
    todo = "make one with atoll-server pretrain"
    check_readable(path, BackboneError, missing="no such backbone file", todo=todo)
    try:
        check_header(path)
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != FORMAT:
            raise ValueError(f"header says format {header.get('format')!r}, not {FORMAT!r}")
        spec = BackboneSpec(**json_value(header["spec"]))
        _check_shapes(spec, tensors)
        backbone = new_backbone(spec, seed=0)
        tensors |= {n: t for n, t in backbone.state_dict().items() if is_slot(n)}
        backbone.load_state_dict(tensors)
        if backbone.digest != header["digest"]:
            raise ValueError("contents do not match the digest in the header")
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ) as fault:
        raise BackboneError(
            f"not a readable backbone ({reason(fault)})",
            where=path,
            todo="fetch it anew, or make one with atoll-server pretrain",
        ) from fault
    return backbone


def _check_shapes(spec: BackboneSpec, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a spec of other shapes than the file holds, before memory is taken for them.

    Raises:
        ValueError: says which tensor, or that the spec has no such numbers.
    """
    numbers = {name: it for name, it in asdict(spec).items() if name != "encoder"}
    if not all(type(it) in (int, float) and 0 <= it < 2**31 for it in numbers.values()):
        raise ValueError("a spec of other values than numbers")
    if spec.layers > len(tensors) or spec.window > WIDEST:
        raise ValueError("a spec of more layers or a wider window than any of ours")
    width, low = spec.width, (spec.rank, spec.width)
    expected = {
        "read.weight": (width, spec.text_width),
        "pretrained.weight": (spec.text_width, width),
        "down.weight": (spec.out_rank, width),
    }
    for layer in range(spec.layers):
        expected[f"layers.{layer}.query_key_value.base.weight"] = (3 * width, width)
        for part in ("query_key_value", "feed_in"):
            expected[f"layers.{layer}.{part}.down.weight"] = low
    for name, shape in expected.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise ValueError(f"tensor {name} is missing or of another shape than the spec says")


def is_slot(name: str) -> bool:
    """Whether a parameter of this name is trainable by platforms."""
    return "adapter" in name.split(".")


def _frozen(backbone: Backbone) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in backbone.state_dict().items()
        if not is_slot(name)
    }
