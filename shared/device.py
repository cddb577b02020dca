"""Where tensors are computed: the GPU when there is one, with autocast where it helps."""

from __future__ import annotations

import contextlib

import torch


def pick_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 for matrix products on a GPU; on a CPU nothing, where it is slower."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
