"""Where tensors are computed: the GPU when there is one, with autocast where it helps."""

from __future__ import annotations

import contextlib

import torch

Context = contextlib.AbstractContextManager[object]


def pick_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, *, mixed: bool = True) -> Context:
    """If mixed, bfloat16 for matrix products on a GPU; on a CPU nothing, where it is slower."""
    if mixed and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
