"""A platform's configuration as the TOML text that `load_platform` reads back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from shared.errors import ConfigError
from shared.files import replacing
from shared.tables.config import EventTable, ItemTable, PlatformConfig
from shared.tables.dialect import NULL_WORDS
from shared.tables.draw import WHOLE
from shared.tables.participation import written
from shared.tables.policy import Policy


def write_platform(config: PlatformConfig, file: Path, *, within: Path) -> None:
    """Write a platform's file: paths within a folder relative to the file, others absolute.

    So the folder can be moved with all that is in it. A cache elsewhere is not named: what is in it
    is made again.

    Args:
        config: of the platform.
        file: to be written; it is in that folder.
        within: the folder.

    Raises:
        ConfigError: it cannot be written, or a path is no text.
    """
    if config.cache is not None and not config.cache.is_relative_to(os.path.abspath(within)):
        config = replace(config, cache=None)
    with replacing(file) as part:
        part.write_text(dump_platform(config, file=file, within=within), encoding="utf-8")


def dump_platform(
    config: PlatformConfig, *, file: Path | None = None, within: Path | None = None
) -> str:
    """TOML text that `load_platform` reads back as an equal value.

    Args:
        config: of the platform; its paths are absolute.
        file: where it will be read from; None leaves every path absolute.
        within: the folder whose paths are written relative to the file's own.
    """
    base = None if file is None or within is None else (file.parent, within)
    sections = _sections(config)
    blocks = []
    for name, section in sections.items():
        lines = [
            f"{_key(k)} = {_toml(_placed(v, base))}" for k, v in section.items() if v is not None
        ]
        if lines:
            blocks.append("\n".join([f"[{name}]", *lines, ""]))
    return "\n".join(blocks)


def _placed(value: object, base: tuple[Path, Path] | None) -> object:
    """A path within a folder relative to that of the file; anything else as it is.

    Raises:
        ConfigError: it has bytes that are no text, which no TOML file can hold.
    """
    if not isinstance(value, Path):
        return value
    place = value
    if base is not None:
        start, within = (Path(os.path.abspath(it)) for it in base)
        if value.is_relative_to(within):
            place = Path(os.path.relpath(value, start))
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            "this path is not UTF-8, so no TOML file can hold it",
            where=ascii(str(place)),
            todo="rename the file or folder",
        ) from None
    return place.as_posix()


def _sections(config: PlatformConfig) -> dict[str, dict[str, object]]:
    events, items = config.events, config.items
    return {
        "platform": {"name": config.name, "weight": config.weight},
        "events": {
            "path": events.path,
            "format": events.format,
            "columns": events.columns,
            "min_length": events.min_length,
            "limit": events.limit,
            "part": None if events.part == WHOLE else events.part,
            "draw": events.draw or None,
            "erased": events.erased,
            **_written(events),
        },
        "items": {
            "path": items.path,
            "format": items.format,
            "columns": items.columns,
            "without_text": items.without_text,
            "part": None if items.part == WHOLE else items.part,
            **_written(items),
        },
        "backbone": dict(path=config.backbone, encoder=config.encoder, cache=config.cache),
        "privacy": _privacy(config.policy),
        "sums": _sums(config.policy),
        "participation": written(config.participation),
        "performance": asdict(config.speed),
        "evaluation": {
            "share_metrics": config.share_metrics,
            "noise_multiplier": config.policy.metrics_noise if config.policy else None,
            "releases": (config.policy.metrics_releases or None) if config.policy else None,
        },
    }


def _written(table: EventTable | ItemTable) -> dict[str, object]:
    """How a table is written; what is detected or a default is left out."""
    dialect = asdict(table.dialect)
    if table.dialect.null_words == NULL_WORDS:
        del dialect["null_words"]
    return {**dialect, "explode": table.explode, "normalise": table.normalise or None}


def _privacy(policy: Policy | None) -> dict[str, object]:
    if policy is None:
        return {}
    numbers: dict[str, object] = {"unprotected": True}
    if policy.plan is not None:
        numbers = {name: it for name, it in policy.plan.public().items() if name != "unit"}
    kept = ("dataset", "ledger", "head", "key", "answer_seconds")
    return {**numbers, **{name: getattr(policy, name) for name in kept}}


def _sums(policy: Policy | None) -> dict[str, object]:
    if policy is None or policy.pairs is None:
        return {}
    more = policy.sums_releases if policy.sums_releases > 1 else None
    return {"pairs": policy.pairs, "noise_multiplier": policy.sums_noise, "releases": more}


def _toml(value: object) -> str:
    """A value in TOML's notation."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Mapping():
            return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            # JSON's escapes are TOML's, less the one control character that JSON lets stand.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
