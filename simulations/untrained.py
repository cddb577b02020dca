"""A platform of public rows with nothing trained: text alone, for benchmarks without a backbone."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from clients.platform import Platform, open_platform
from server.pretrain import SHAPE
from shared.backbone import new_backbone, save_backbone
from shared.tables.config import PlatformConfig
from shared.tables.table import PlatformRows
from shared.text import Progress, find_encoder, silent


def opened(
    config: PlatformConfig,
    *,
    cache: Path | None,
    rows: PlatformRows | None = None,
    progress: Progress = silent,
) -> Platform:
    """The platform with an untrained backbone, whichever its file names.

    Args:
        config: of the table.
        cache: folder of item vectors; None keeps nothing.
        rows: its tables where they are read already; None reads them.
        progress: called while item texts are read.

    Raises:
        AtollError: as of `open_platform`.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = find_encoder(config.encoder)
        spec = replace(SHAPE, encoder=text.digest, text_width=text.width)
        path = Path(folder) / "backbone.safetensors"
        save_backbone(new_backbone(spec, seed=0), path)
        named = replace(config, backbone=path, cache=cache)
        return open_platform(named, rows=rows, progress=progress)
