"""Where tensors are computed: the GPU when there is one, with autocast where it helps."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

Context = contextlib.AbstractContextManager[object]
Use = Literal["auto", "never", "always"]  # of a GPU, as a platform's file says it


def pick_device(use: Use = "auto") -> torch.device:
    """The first CUDA device, else the CPU; the CPU in any case where a GPU is never to be used."""
    return torch.device("cuda" if use != "never" and torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, *, mixed: bool = True) -> Context:
    """If mixed, bfloat16 for matrix products on a GPU; on a CPU nothing, where it is slower."""
    if mixed and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
