"""The small trainable part: named float32 tensors that travel, and nothing else does.

An Adapter belongs to one backbone and one task, and says so in the header of its file. Its digest
covers names, shapes and every byte, so that two parties can agree on what they hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from shared.errors import AdapterError
from shared.files import check_tensors, replacing

FORMAT = "atoll-adapter-1"
Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Adapter:
    """A state of the shared part of the recommender.

    Attributes:
        tensors: by name, float32, finite.
        backbone: digest of the backbone they fit.
        task: name of the task they were trained for.
        version: rounds behind it; 0 is the untrained state.
    """

    tensors: Tensors
    backbone: str
    task: str
    version: int = 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over backbone, task, version and the tensors in the order of their names."""
        head = json.dumps([FORMAT, self.backbone, self.task, self.version])
        state = hashlib.sha256(head.encode())
        for name in sorted(self.tensors):
            # Not ascontiguousarray, which makes a scalar a vector.
            tensor = np.asarray(self.tensors[name], np.float32, order="C")
            state.update(f"{name}{tensor.shape}\n".encode())
            state.update(tensor.tobytes())
        return state.hexdigest()

    @property
    def size(self) -> int:
        """Trainable numbers."""
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape by name: what an Update of this Adapter must have."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def plus(self, delta: Tensors, *, version: int) -> Adapter:
        """This Adapter moved by `delta`, which has the same names and shapes."""
        moved = {
            name: np.asarray(tensor + delta[name], np.float32)
            for name, tensor in self.tensors.items()
        }
        return replace(self, tensors=moved, version=version)

    def minus(self, other: Adapter) -> dict[str, NDArray[np.float32]]:
        """The delta that leads from `other` to this Adapter."""
        return {
            name: np.asarray(tensor - other.tensors[name], np.float32)
            for name, tensor in self.tensors.items()
        }


def save_adapter(adapter: Adapter, path: Path, *, private: bool = False) -> None:
    """Write a safetensors file whose header names backbone, task, version and digest.

    Args:
        adapter: the state.
        path: of the file.
        private: only its owner may read it, since it was trained on rows without a Plan.
    """
    header = {
        "format": FORMAT,
        "backbone": adapter.backbone,
        "task": adapter.task,
        "version": str(adapter.version),
        "digest": adapter.digest,
    }
    tensors = {
        name: np.asarray(value, np.float32, order="C") for name, value in adapter.tensors.items()
    }
    with replacing(path, private=private) as part:
        save_file(tensors, part, metadata=header)


def load_adapter(path: Path, *, backbone: str | None = None, task: str | None = None) -> Adapter:
    """Read an adapter file and check it against what it is to be used with.

    Args:
        path: a file written by `save_adapter`.
        backbone: digest of the backbone at hand; None accepts any.
        task: name of the task at hand; None accepts any.

    Raises:
        AdapterError: missing, not an adapter, damaged, or of another backbone or task.
    """
    if not path.is_file():
        raise AdapterError("no such adapter file", where=path, todo="check the path")
    try:
        check_tensors(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as fault:  # TypeError: bfloat16
        raise AdapterError(
            f"not a readable adapter ({str(fault).splitlines()[0]})",
            where=path,
            todo="fetch it anew from the server",
        ) from fault
    if header.get("format") != FORMAT:
        raise AdapterError(
            f"header says format {json.dumps(header.get('format'))}, not {FORMAT!r}",
            where=path,
            todo="name a file that atoll wrote as an adapter",
        )
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise AdapterError(
                f"tensor {name!r} is {tensor.dtype}, not float32, or has values not finite",
                where=path,
                todo="fetch it anew from the server",
            )
    version = header.get("version", "")
    if not (version.isascii() and version.isdigit()):
        raise AdapterError(
            f"header says version {version!r}, which counts no rounds",
            where=path,
            todo="fetch it anew from the server",
        )
    adapter = Adapter(
        tensors=tensors,
        backbone=header.get("backbone", ""),
        task=header.get("task", ""),
        version=int(version),
    )
    if adapter.digest != header.get("digest"):
        raise AdapterError(
            f"contents hash to {adapter.digest[:12]}…, not to its {header.get('digest', '')[:12]}…",
            where=path,
            todo="fetch it anew from the server",
        )
    if backbone is not None and adapter.backbone != backbone:
        raise AdapterError(
            f"belongs to backbone {adapter.backbone[:12]}…, this one is {backbone[:12]}…",
            where=path,
            todo="use the backbone it was trained with",
        )
    if task is not None and adapter.task != task:
        raise AdapterError(
            f"belongs to task {adapter.task!r}, this one is {task!r}",
            where=path,
            todo="use an adapter of this task",
        )
    return adapter
